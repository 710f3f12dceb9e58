/* Constants of Philox4x32 (Random123: include/Random123/philox.h). */
#ifndef FASTDROP_PHILOX_H
#define FASTDROP_PHILOX_H

#define PHILOX_M0 0xD2511F53u    /* multipliers of counter words 0 and 2 */
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u    /* added to the key words after each round */
#define PHILOX_W1 0xBB67AE85u

#endif

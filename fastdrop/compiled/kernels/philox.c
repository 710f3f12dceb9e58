/* Philox4x32-10 on one counter: the definition, which key derivation also uses.
   Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC11. */
#include "kernels.h"
#include "philox.h"

void fd_key_init(fd_key *key, uint64_t seed, uint64_t call)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    key->call = call;
    for (int r = 0; r < 10; r++, k0 += PHILOX_W0, k1 += PHILOX_W1) {
        key->round[r][0] = k0;
        key->round[r][1] = k1;
    }
}

void fd_philox(const uint32_t counter[4], uint64_t seed, uint32_t out[4])
{
    fd_key key;
    fd_key_init(&key, seed, 0);
    uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3];
    for (int r = 0; r < 10; r++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * a, p1 = (uint64_t)PHILOX_M1 * c;
        a = (uint32_t)(p1 >> 32) ^ b ^ key.round[r][0];
        b = (uint32_t)p1;
        c = (uint32_t)(p0 >> 32) ^ d ^ key.round[r][1];
        d = (uint32_t)p0;
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

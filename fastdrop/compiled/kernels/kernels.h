/* The mask contract, and the kernels that keep it.
 *
 * A mask is a pure function of (key, p, element index): the same on every instruction set, thread
 * count, chunking, dtype, batch split and rank count, and stable between releases.
 *
 *   key = (seed, call), two 64-bit integers.   Generator: Philox4x32-10 (Salmon et al., SC11).
 *
 *            counter word 0        word 1                             words 2, 3     key words 0, 1
 *            +----------------+    +----------+---------+--------+    +----------+   +------------+
 *            | block,         |    | domain   | plane   | block, |    | call     |   | seed       |
 *            | bits 0 to 31   |    | bits 21+ | 5 bits  | 32..47 |    | low,high |   | low, high  |
 *            +----------------+    +----------+---------+--------+    +----------+   +------------+
 *            domain 0: masks    1: 32-bit words for other variates    2: key derivation (fold_in)
 *
 * Element i owns a 32-bit uniform integer u_i and is kept iff u_i < T, T = rint((1 - p) 2^32). The
 * bits are transposed: plane j holds bit j, most significant first, of every u_i.
 *
 *   element i  -->  tile i >> 11   (2048 elements = 16 Philox blocks = 64 words of 32 bits)
 *
 *     one tile, one plane            block 16t+0   16t+1   ...   16t+15
 *     (word w = (i >> 5) & 63,      +-------------+-------+-----+-------+
 *      bit i & 31 of that word)   0 | word  0     |   1   | ... |   15  |   element bits
 *                     output word 1 | word 16     |  17   | ... |   31  |   w*32 .. w*32+31
 *                     of a block  2 | word 32     |  33   | ... |   47  |   lie in word w
 *                                 3 | word 48     |  49   | ... |   63  |
 *                                   +-------------+-------+-----+-------+
 *     16 blocks side by side are 16 SIMD lanes: nothing moves between lanes, so a vector of any
 *     width writes the same words.
 *
 * u_i < T is decided bit-sliced, plane by plane, for all elements of a tile at once:
 *
 *     undecided = ones, kept = zeros
 *     digit j of T is 1:   kept |= undecided & ~plane;   undecided &=  plane
 *     digit j of T is 0:                                 undecided &= ~plane
 *     stop when nothing is undecided or all further digits of T are 0 (exact either way)
 *
 * so p = 1/2 costs one random bit per element, 1/4 two, p = 0.1 about 12, always exact to 2^-32.
 * T = 0 drops and T = 2^32 keeps everything, without random bits.
 *
 * Domain 1: element i owns one word: output word e >> 4 of block 16 (i >> 6) + (e & 15), e = i & 63.
 * The 48 bits of the block counter reach to i < 2^50 there.
 * Its normal variate is the inverse normal distribution function of (word + 1/2) / 2^32, in float32
 * or, for float64, in float64 arithmetic: the same bits on every instruction set (normal.h).
 *
 * An array that starts at global element `offset` gets bits [offset, offset + n) of the whole mask.
 * Packed masks hold 1 bit per element, 1 = kept, in little-endian bits; padding bits are 0.
 * Elements are selected, not multiplied: a dropped element is +0.0 even where the input is inf or
 * NaN.
 *
 * Nothing here allocates, fails, starts threads or knows Python. tests/reference.py is the same
 * contract in NumPy.
 */
#ifndef FASTDROP_KERNELS_H
#define FASTDROP_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fastdrop's packed masks are little-endian in memory; this machine is big-endian"
#endif

enum { FD_TILE = 2048, FD_TILE_WORDS = 64 };       /* elements and 32-bit words of a mask tile */
enum { FD_DOMAIN_MASK = 0, FD_DOMAIN_WORDS = 1, FD_DOMAIN_FOLD = 2 };
enum { FD_MAX_DIMS = 64 };                         /* NumPy's limit since 2.0 */

typedef enum { FD_FLOAT16, FD_BFLOAT16, FD_FLOAT32, FD_FLOAT64, FD_NUM_DTYPES } fd_dtype;
static const size_t fd_itemsize[FD_NUM_DTYPES] = {2, 2, 4, 8};

/* What is done to an element. Half types are computed in float32. */
typedef enum {
    FD_SCALE,            /* y = kept ? x * scale : +0.0 */
    FD_ADD,              /* y = (kept ? x * scale : +0.0) + z */
    FD_BIAS,             /* y = kept ? (x + z) * scale : +0.0 */
    FD_BIAS_RELU,        /* y = kept ? relu(x + z) * scale : +0.0 */
    FD_ALPHA,            /* y = kept ? x * scale + shift : fill */
    FD_PICK,             /* y = kept ? x : z */
    FD_NUM_MASKED_OPS,
    FD_RELU_BACKWARD = FD_NUM_MASKED_OPS,    /* y = z > 0 ? x * scale : +0.0 */
    FD_SCALE_RUNS,       /* FD_SCALE, for stored bits: x is not read where a word is 0 */
    FD_COPY,             /* y = x */
    FD_NUM_BIT_OPS,
    FD_NORMAL_SCALE = FD_NUM_BIT_OPS,    /* y = x * (1 + scale * normal variate) */
    FD_NORMAL_ADD,       /* y = x + scale * normal variate */
    FD_NUM_OPS
} fd_op;

/* ---- Philox4x32-10: f(counter, key), no state ------------------------------------------------ */

typedef struct {
    uint64_t call;
    uint32_t round[10][2];    /* key words of each round */
} fd_key;

void fd_key_init(fd_key *key, uint64_t seed, uint64_t call);
void fd_philox(const uint32_t counter[4], uint64_t seed, uint32_t out[4]);

/* ---- One table of loops per instruction set --------------------------------------------------- */

typedef struct {
    const void *x, *z;    /* z is x where the operation has no second operand */
    void *y;              /* may be x */
    double scale, shift, fill;
    int stream;           /* write around the cache; y is 64-byte aligned */
} fd_operands;

struct fd_optimizer_loops;    /* optimizers.h */
struct fd_softmax_loops;      /* softmax.h */
struct fd_product_loops;      /* products.h */
struct fd_activation_loops;   /* activations.h */

typedef struct {
    const char *name;
    /* computes the 64 words of a tile's mask; 0 < threshold < 2^32 */
    void (*mask_tile)(const fd_key *key, uint32_t threshold, uint64_t tile, uint32_t *words);
    /* computes the 64 words of a domain-1 tile */
    void (*word_tile)(const fd_key *key, uint64_t tile, uint32_t *words);
    /* processes n elements; element i is kept where bit i of words is 1, or owns words[i] where the
       operation takes normal variates */
    void (*apply[FD_NUM_OPS][FD_NUM_DTYPES])(const uint32_t *words, size_t n,
                                             const fd_operands *operands);
    /* does both at once: mask_tile into next, and apply for a whole tile with words. One waits for
       the multipliers, the other for memory, so together they take little more than the longer. */
    void (*apply_and_draw[FD_NUM_MASKED_OPS][FD_NUM_DTYPES])(const uint32_t *words,
                                                             const fd_operands *operands,
                                                             const fd_key *key, uint32_t threshold,
                                                             uint64_t tile, uint32_t *next);
    /* computes sum[c] += x[c] for c < n; sum has floats, or doubles for float64 */
    void (*accumulate[FD_NUM_DTYPES])(size_t n, const void *x, void *sum);
    /* is called after streamed stores, before another thread reads them */
    void (*fence)(void);
    const struct fd_optimizer_loops *optimizers;
    const struct fd_softmax_loops *softmax;
    const struct fd_product_loops *products;
    const struct fd_activation_loops *activations;
} fd_kernels;

extern const fd_kernels fd_generic, fd_avx2, fd_avx512, fd_neon;    /* those this build has */

/* What this CPU and its operating system can run, the best first; NULL is the end. */
const fd_kernels *const *fd_available(void);

/* ---- A mask over an array, wherever its bits come from ----------------------------------------- */

typedef struct {
    const fd_kernels *kernels;
    /* generated: bits [offset, ...) of the mask of key and threshold (0 to 2^32) */
    fd_key key;
    uint64_t threshold, offset;
    /* or, if packed is not NULL, read from `packed_bytes` bytes of stored bits, through axes:
       the array's shape with neighbouring axes merged; stride counts bits, 0 on shared axes */
    const uint8_t *packed;
    uint64_t packed_bytes;
    int ndim;
    uint64_t shape[FD_MAX_DIMS], stride[FD_MAX_DIMS];
} fd_bits;

/* T of the contract. */
uint64_t fd_threshold(double p);

/* What is computed with it. Outputs that are NULL are left out. All but z point to element 0. */
typedef struct {
    const fd_kernels *kernels;
    const fd_bits *bits;    /* not read by operations without a mask; operations with normal
                               variates take key and offset from it */
    fd_op op;
    fd_dtype dtype;
    const void *x, *z;      /* z is NULL, has the shape of x, or, with z_period > 0, is a bias of
                               that many elements, and of FD_TILE more, which repeat it */
    uint64_t z_period;
    void *y;                /* may be x */
    double scale, shift, fill;
    int stream;
    uint8_t *packed;        /* the mask, one bit per element */
    uint8_t *bools;         /* the mask, one byte (0 or 1) per element */
    void *column_sum;       /* elements of y are added to sum_period sums in turn, and the first of
                               a range to the first; sums are float, or double for float64 */
    uint64_t sum_period;
} fd_job;

/* Processes elements [start, start + n) of an array. Threads may take a range each if no two ranges
   write to the same byte: bits of packed masks are written up to the end of their byte. */
void fd_run(const fd_job *job, uint64_t start, uint64_t n);

/* DropBlock: drops whole squares of feature maps, (samples, maps, height, width) in C order. The
   squares of a map have their upper left corners where the mask of shape (samples, maps,
   height - block + 1, width - block + 1) drops. What no square covers is kept. A sample's kept
   elements are multiplied by the number of its elements over the number of its kept ones. */
typedef struct {
    fd_job job;        /* x, y, dtype, stream; bits are those of the corners */
    uint64_t maps, height, width, block;
} fd_blocks;

/* Returns how many 64-bit words of scratch memory a thread needs. */
uint64_t fd_blocks_scratch(const fd_blocks *blocks);

void fd_drop_blocks(const fd_blocks *blocks, uint64_t sample, uint64_t *scratch);

/* Computes words [offset, offset + n) of domain 1. */
void fd_words(const fd_kernels *kernels, const fd_key *key, uint64_t offset, uint64_t n,
              uint32_t *out);

#endif

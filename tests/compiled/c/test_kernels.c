/* All kernels, without Python: every instruction set of this machine against the reference's masks
 * and values (make_cases.py), optimisers, softmax and activations against the portable ones, products
 * against their definition, and Philox against the published answers.
 *
 *     test_kernels known_answers.txt cases.bin
 *
 * Built natively with sanitizers, and for other processors to run under an emulator.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/activations.h"
#include "kernels/kernels.h"
#include "kernels/optimizers.h"
#include "kernels/products.h"
#include "kernels/softmax.h"

static unsigned long failures, checks;

static void check(int ok, const char *what, const char *isa, unsigned long number)
{
    checks++;
    if (!ok && failures++ < 20)
        printf("FAILED %s: %s, case %lu\n", isa, what, number);
}

static void read_all(FILE *file, void *to, size_t bytes)
{
    if (fread(to, 1, bytes, file) != bytes) {
        printf("FAILED: the file ends early\n");
        exit(1);
    }
}

static void known_answers(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];
    unsigned long number = 0;
    while (file && fgets(line, sizeof line, file)) {
        uint32_t w[10], out[4];
        if (sscanf(line,
                   "philox4x32 10 %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32
                   " %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32,
                   w, w + 1, w + 2, w + 3, w + 4, w + 5, w + 6, w + 7, w + 8, w + 9) != 10)
            continue;
        fd_philox(w, w[4] | (uint64_t)w[5] << 32, out);
        check(memcmp(out, w + 6, sizeof out) == 0, "known answer", "philox", ++number);
    }
    check(number >= 3, "known answers read", "philox", number);
    if (file)
        fclose(file);
}

typedef struct {
    uint64_t seed, call, threshold, offset, n, op, dtype, z_period, z_bytes;
    double scale, shift, fill;
} header;

/* One case with one instruction set; `shift` elements further in a cache line, streaming or not. */
static void run_case(const fd_kernels *isa, const header *h, const char *x, const char *z,
                     const char *y, const uint8_t *packed, size_t size, int variant,
                     unsigned long number)
{
    const int stream = variant & 1, in_place = variant >> 1 & 1;
    const size_t shift = stream ? 0 : (size_t)(variant >> 2) * size;
    char *memory = aligned_alloc(64, (h->n * size + shift + 127) / 64 * 64);
    char *result = memory + shift;
    uint8_t *mask = malloc((h->n + 7) / 8), *bools = malloc(h->n);
    fd_bits bits = {.kernels = isa, .threshold = h->threshold, .offset = h->offset};
    fd_key_init(&bits.key, h->seed, h->call);
    fd_job job = {.kernels = isa, .bits = &bits, .op = (fd_op)h->op, .dtype = (fd_dtype)h->dtype,
                  .x = in_place ? result : x, .z = z, .z_period = h->z_period, .y = result,
                  .scale = h->scale, .shift = h->shift, .fill = h->fill, .stream = stream};
    if (in_place)
        memcpy(result, x, h->n * size);
    if (h->op < FD_NUM_MASKED_OPS)
        job.packed = mask, job.bools = bools;
    /* in two ranges, as two threads would */
    const uint64_t cut = h->n / 2 / FD_TILE * FD_TILE;
    fd_run(&job, cut, h->n - cut);
    fd_run(&job, 0, cut);
    check(memcmp(result, y, h->n * size) == 0, "values", isa->name, number);
    if (job.packed) {
        check(memcmp(mask, packed, (h->n + 7) / 8) == 0, "packed mask", isa->name, number);
        int same = 1;
        for (uint64_t i = 0; i < h->n; i++)
            same &= bools[i] == (packed[i / 8] >> i % 8 & 1);
        check(same, "bools", isa->name, number);
        /* the same bits, read from memory */
        fd_bits stored = {.kernels = isa, .packed = packed, .packed_bytes = (h->n + 7) / 8,
                          .ndim = 1, .shape = {h->n}, .stride = {1}};
        fd_job again = job;
        again.bits = &stored;
        if (in_place)
            memcpy(result, x, h->n * size);
        fd_run(&again, 0, h->n);
        check(memcmp(result, y, h->n * size) == 0, "values of a stored mask", isa->name, number);
        if (h->op == FD_SCALE) {
            again.op = FD_SCALE_RUNS;
            if (in_place)
                memcpy(result, x, h->n * size);
            fd_run(&again, 0, h->n);
            check(memcmp(result, y, h->n * size) == 0, "values in runs", isa->name, number);
        }
    }
    free(memory), free(mask), free(bools);
}

static uint64_t random_below(uint64_t n)
{
    static uint32_t counter[4];
    uint32_t out[4];
    counter[0]++;
    fd_philox(counter, 1, out);
    return out[0] % n;
}

static void fill_randomly(uint8_t *bytes, uint64_t n)
{
    while (n)
        bytes[--n] = (uint8_t)random_below(256);
}

/* Stored bits repeated along shared axes, of up to four axes: against one look-up an element. */
static void shared_axes(const fd_kernels *isa, unsigned long number)
{
    static const uint64_t lengths[] = {1, 2, 3, 5, 7, 8, 31, 32, 33, 64, 100, 512, 784, 4096, 6000};
    fd_bits bits = {.ndim = 1 + (int)random_below(4)};
    uint64_t n = 1, stored = 1;
    for (int d = bits.ndim - 1, shared = (int)random_below(2); d >= 0; d--, shared = !shared) {
        bits.shape[d] = lengths[random_below(sizeof lengths / sizeof *lengths)];
        while (n * bits.shape[d] > 30000)
            bits.shape[d] = (bits.shape[d] + 1) / 2;
        bits.stride[d] = shared ? 0 : stored;
        stored *= shared ? 1 : bits.shape[d];
        n *= bits.shape[d];
    }
    uint8_t *packed = malloc((stored + 7) / 8);
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    fill_randomly(packed, (stored + 7) / 8);
    bits.packed = packed, bits.packed_bytes = (stored + 7) / 8;
    for (uint64_t i = 0; i < n; i++)
        x[i] = 1.0f + (float)i;
    const fd_job job = {.kernels = isa, .bits = &bits, .op = FD_SCALE_RUNS, .dtype = FD_FLOAT32,
                        .x = x, .y = y, .scale = 2};
    const uint64_t cut = random_below(n + 1);
    fd_run(&job, cut, n - cut);
    fd_run(&job, 0, cut);
    int same = 1;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = 0, rest = i;
        for (int d = bits.ndim - 1; d >= 0; d--) {
            at += rest % bits.shape[d] * bits.stride[d];
            rest /= bits.shape[d];
        }
        same &= y[i] == (packed[at / 8] >> at % 8 & 1 ? 2 * x[i] : 0.0f);
    }
    check(same, "shared axes", isa->name, number);
    free(packed), free(x), free(y);
}

/* Arrays without elements, whose axes are shared or not, whichever of them is 0 long. */
static void empty(const fd_kernels *isa)
{
    uint8_t packed[3] = {0xFF, 0xFF, 0xFF};
    float x = 1, y = 7;
    for (unsigned zeros = 1; zeros < 8; zeros++)
        for (unsigned shared = 0; shared < 8; shared++) {
            fd_bits bits = {.ndim = 3, .packed = packed, .packed_bytes = sizeof packed};
            for (int d = 0; d < 3; d++) {
                bits.shape[d] = zeros >> d & 1 ? 0 : 64;
                bits.stride[d] = shared >> d & 1 ? 0 : 1;
            }
            for (int op = 0; op < FD_NUM_OPS; op++) {
                const fd_job job = {.kernels = isa, .bits = &bits, .op = (fd_op)op,
                                    .dtype = FD_FLOAT32, .x = &x, .y = &y, .scale = 2};
                fd_run(&job, 0, 0);
            }
        }
    check(y == 7, "empty arrays", isa->name, 1);
}

/* DropBlock against a look at every corner that may cover an element. */
static void blocks(const fd_kernels *isa, unsigned long number)
{
    const uint64_t samples = 1 + random_below(3);
    fd_blocks b = {.maps = 1 + random_below(3), .height = 1 + random_below(40),
                   .width = 1 + random_below(150)};
    b.block = 1 + random_below(b.height < b.width ? b.height : b.width);
    const uint64_t rows = b.height - b.block + 1, columns = b.width - b.block + 1;
    const uint64_t n = b.maps * b.height * b.width, places = b.maps * rows * columns;
    fd_bits bits = {.kernels = isa, .threshold = fd_threshold(0.02), .offset = 77};
    fd_key_init(&bits.key, 5, number);
    uint8_t *no_corner = malloc(samples * places), *kept = malloc(n);
    float *x = malloc(samples * n * sizeof *x), *y = malloc(samples * n * sizeof *y);
    for (uint64_t i = 0; i < samples * n; i++)
        x[i] = 1.0f + (float)i;
    const fd_job draw = {.kernels = isa, .bits = &bits, .bools = no_corner};
    fd_run(&draw, 0, samples * places);
    b.job = (fd_job){.kernels = isa, .bits = &bits, .dtype = FD_FLOAT32, .x = x, .y = y};
    uint64_t *scratch = malloc(fd_blocks_scratch(&b) * sizeof *scratch);
    int same = 1;
    for (uint64_t s = samples; s-- > 0;) {
        uint64_t count = 0;
        fd_drop_blocks(&b, s, scratch);
        memset(kept, 1, n);
        for (uint64_t k = 0; k < places; k++)
            for (uint64_t i = 0; !no_corner[s * places + k] && i < b.block * b.block; i++)
                kept[(k / (rows * columns) * b.height + k / columns % rows + i / b.block) * b.width +
                     k % columns + i % b.block] = 0;
        for (uint64_t i = 0; i < n; i++)
            count += kept[i];
        const float scale = count ? (float)((double)n / (double)count) : 0;
        for (uint64_t i = 0; i < n; i++)
            same &= y[s * n + i] == (kept[i] ? x[s * n + i] * scale : 0.0f);
    }
    check(same, "blocks", isa->name, number);
    free(no_corner), free(kept), free(x), free(y), free(scratch);
}

/* Normal variates of the words at the ends and in the middle of their range, and one bit pattern
   for all processors. */
static void normal_variates(const fd_kernels *isa)
{
    static const struct {
        uint32_t word;
        double z;
    } quantiles[] = {{0, -6.33795775455378925},         {1, -6.16642951781975025},
                     {0x40000000, -0.674489749829738432}, {0x7FFFFFFF, -2.91809937291662267e-10},
                     {0x80000000, 2.91809937291662267e-10}, {0xFFFFFFFE, 6.16642951781975025},
                     {0xFFFFFFFF, 6.33795775455378925}};
    enum { KNOWN = sizeof quantiles / sizeof *quantiles, N = 100003 };
    static uint32_t words[N];
    static double zeros[N], y[N];
    for (uint32_t i = 0; i < N; i++)
        words[i] = i < KNOWN ? quantiles[i].word : i * 2654435761u;
    for (int dtype = FD_FLOAT32; dtype <= FD_FLOAT64; dtype++) {
        const fd_operands operands = {.x = zeros, .y = y, .scale = 1};
        isa->apply[FD_NORMAL_ADD][dtype](words, N, &operands);
        for (unsigned long i = 0; i < KNOWN; i++) {
            const double z = dtype == FD_FLOAT32 ? (double)((float *)y)[i] : y[i];
            const double error = z / quantiles[i].z - 1, limit = dtype == FD_FLOAT32 ? 6e-7 : 2e-15;
            check(error < limit && error > -limit, "quantile", isa->name, i);
        }
        uint64_t digest = 14695981039346656037u;    /* FNV-1a */
        for (size_t i = 0; i < N * fd_itemsize[dtype]; i++)
            digest = (digest ^ ((unsigned char *)y)[i]) * 1099511628211u;
        const uint64_t expected = dtype == FD_FLOAT32 ? 0x7868cf829307c494 : 0x9ae3d05c8c23d246;
        check(digest == expected, "digest of variates", isa->name, (unsigned long)dtype);
    }
}

/* Optimisers: this instruction set's results equal the portable ones, which the Python tests compare
   with NumPy. A parameter of 3 rows; its gradient is dense or half of it in two parts. */
static void run_optimizer(const fd_kernels *isa, fd_optimizer optimizer, int is_double, int general,
                          int in_parts, uint64_t columns, char *memory)
{
    enum { ROWS = 3, PARTS = 2, STREAMS = 2 + FD_MAX_STATES };
    const uint64_t n = ROWS * columns, words = (columns + 63) / 64;
    const size_t size = is_double ? sizeof(double) : sizeof(float);
    const intptr_t rows[] = {0, 2};
    char *at[STREAMS];
    uint64_t *bits = calloc(words, sizeof *bits), kept = 0;
    double sums[ROWS];
    for (uint64_t i = 0; i < STREAMS * n; i++) {    /* positive where a state is a mean square */
        const double x = (double)(i * 2654435761u % 4294967296u) / 4294967296.0 - (i < 2 * n) * 0.5;
        if (is_double)
            ((double *)memory)[i] = x;
        else
            ((float *)memory)[i] = (float)x;
    }
    for (int i = 0; i < STREAMS; i++)
        at[i] = memory + i * n * size;
    for (uint64_t c = 0; c < columns; c++)
        if (c % 3 != 1) {
            bits[c / 64] |= 1ull << c % 64;
            kept++;
        }
    const fd_part parts[PARTS] = {{2, kept, rows, bits, at[1]}, {1, kept, rows + 1, bits, at[1]}};
    fd_update u = {.kernels = isa, .optimizer = optimizer, .is_double = is_double,
                   .step = {.rate = 0.1, .momentum = 0.9, .keep = 0.8, .gain = 0.1,
                            .square_gain = 0.2, .epsilon = 1e-3, .limit = INFINITY, .scale = 1},
                   .max_norm = general ? 1.5 : INFINITY, .w = at[0],
                   .state = {at[2], at[3], at[4]}, .d = in_parts ? NULL : at[1], .parts = parts,
                   .num_parts = in_parts ? PARTS : 0, .n = n, .columns = columns};
    if (general) {
        u.step.l1 = 0.01;
        u.step.l2 = 0.02;
        u.step.limit = 0.3;
        u.step.scale = 0.7;
        u.step.decay = 0.001;
    }
    void *scratch = aligned_alloc(64, fd_update_scratch(&u) + 64);
    fd_gradient_squares(&u, 0, ROWS, scratch, sums);
    fd_update_rows(&u, 1, ROWS, scratch);
    fd_update_rows(&u, 0, 1, scratch);
    memcpy(memory + STREAMS * n * size, sums, sizeof sums);
    free(scratch);
    free(bits);
}

/* A state below the normal numbers becomes 0 on the machines of denormals.h. */
static void flushed_states(const fd_kernels *isa)
{
#if defined(__x86_64__) || defined(__aarch64__)
    enum { N = 19 };
    float w[N], d[N] = {0}, state[N];
    for (int i = 0; i < N; i++)
        w[i] = 1, state[i] = 1e-40f;
    const fd_update u = {.kernels = isa, .optimizer = FD_MOMENTUM,
                         .step = {.momentum = 0.9, .limit = INFINITY, .scale = 1},
                         .max_norm = INFINITY, .w = w, .state = {state}, .d = d, .n = N,
                         .columns = N};
    void *scratch = aligned_alloc(64, fd_update_scratch(&u) + 64);
    fd_update_rows(&u, 0, 1, scratch);
    free(scratch);
    for (int i = 0; i < N; i++)
        check(w[i] == 1 && memcmp(&state[i], &d[i], sizeof *d) == 0, "flushed state", isa->name,
              (unsigned long)i);
#else
    (void)isa;
#endif
}

static void optimizers(const fd_kernels *isa)
{
    enum { BYTES = 5 * 3 * 700 * sizeof(double) + 64 };
    static char expected[BYTES], result[BYTES];
    const uint64_t columns[] = {1, 7, 64, 100, 700};
    for (int optimizer = 0; optimizer < FD_NUM_OPTIMIZERS; optimizer++)
        for (int variant = 0; variant < 8 * 5; variant++) {
            const int is_double = variant & 1, general = variant >> 1 & 1, parts = variant >> 2 & 1;
            memset(expected, 0, BYTES);
            memset(result, 0, BYTES);
            run_optimizer(&fd_generic, (fd_optimizer)optimizer, is_double, general, parts,
                          columns[variant / 8], expected);
            run_optimizer(isa, (fd_optimizer)optimizer, is_double, general, parts,
                          columns[variant / 8], result);
            check(memcmp(expected, result, BYTES) == 0, "optimizer", isa->name,
                  (unsigned long)(optimizer * 100 + variant));
        }
}

/* Equal bits; NaNs are equal whatever theirs. */
static int same_numbers(const void *a, const void *b, uint64_t n, fd_dtype dtype)
{
    const size_t size = fd_itemsize[dtype];
    /* the bits of infinity: what is more, without its sign, is NaN */
    const uint64_t infinite[FD_NUM_DTYPES] = {0x7C00, 0x7F80, 0x7F800000, 0x7FF0000000000000};
    const uint64_t magnitude = (1ull << (8 * size - 1)) - 1;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t u = 0, v = 0;
        memcpy(&u, (const char *)a + i * size, size);
        memcpy(&v, (const char *)b + i * size, size);
        const int nan = (u & magnitude) > infinite[dtype];
        if (nan ? (v & magnitude) <= infinite[dtype] : u != v)
            return 0;
    }
    return 1;
}

/* Softmax forward and backward: rows of any length, causal, with each kind of mask, as the portable
   loops have them. */
static void softmax(const fd_kernels *isa)
{
    enum { ROWS = 5, MOST = 100 };
    static double x[ROWS * MOST], dy[ROWS * MOST], add[MOST], found[2][2][ROWS * MOST];
    static uint8_t taken[MOST];
    static uint64_t scratch[4096];
    for (unsigned long number = 0; number < 400; number++) {
        const fd_dtype dtype = (fd_dtype)(number % FD_NUM_DTYPES);
        const uint64_t keys = 1 + random_below(MOST);
        fd_bits bits = {.threshold = number % 5 ? fd_threshold(0.3) : 1ull << 32,
                        .offset = random_below(5000)};
        fd_softmax s = {.bits = &bits, .dtype = dtype, .x = x, .dy = dy, .keys = keys,
                        .stride = keys, .queries = ROWS, .causal = number % 3 == 0,
                        .scale = 1 / 0.7, .ndim = 0};
        fd_key_init(&bits.key, number, 1);
        fill_randomly((uint8_t *)x, sizeof x);    /* of all magnitudes, infinite and NaN, too */
        fill_randomly((uint8_t *)dy, sizeof dy);
        fill_randomly(taken, sizeof taken);
        for (uint64_t i = 0; i < ROWS * MOST && number % 2; i++) {    /* or such as there are */
            const double value = (double)random_below(1000) / 100 - 5;
            if (dtype == FD_FLOAT64)
                x[i] = value;
            else if (dtype == FD_FLOAT32)
                ((float *)x)[i] = (float)value;
            else
                ((uint16_t *)x)[i] = (uint16_t)(random_below(0x4000) | random_below(2) << 15);
        }
        for (uint64_t i = 0; i < MOST; i++) {
            taken[i] = (uint8_t)(taken[i] & (number % 7 ? 3 : 0));
            if (dtype == FD_FLOAT64)
                add[i] = (double)i / 10;
            else
                ((float *)add)[i] = (float)i / 10;
        }
        if (number % 4 == 1)
            s.taken = taken;
        else if (number % 4 == 2)
            s.add = add;
        memset(found, 0, sizeof found);
        for (int own = 0; own < 2; own++) {
            s.kernels = bits.kernels = own ? isa : &fd_generic;
            s.y = found[own][0];
            s.dx = found[own][1];
            check(fd_softmax_scratch(&s) <= sizeof scratch, "softmax, scratch", isa->name, number);
            fd_softmax_rows(&s, 0, ROWS, scratch);
        }
        const uint64_t n = ROWS * keys;
        for (int of = 0; of < 2; of++)
            check(same_numbers(found[0][of], found[1][of], n, dtype), of ? "softmax, backward" : "softmax",
                  isa->name, number);
    }
}

/* Activations and their gradients, of any number of elements, as the portable loops have them. */
static void activations(const fd_kernels *isa)
{
    enum { MOST = 100 };
    static double z[MOST], dy[MOST], found[2][2][MOST];
    for (unsigned long number = 0; number < 2000; number++) {
        const int is_double = number % 2;
        const unsigned long of = number / 2 % FD_NUM_ACTIVATIONS;
        const fd_dtype dtype = is_double ? FD_FLOAT64 : FD_FLOAT32;
        const uint64_t n = random_below(MOST + 1);
        fill_randomly((uint8_t *)z, sizeof z);    /* of all magnitudes, infinite and NaN, too */
        fill_randomly((uint8_t *)dy, sizeof dy);
        for (uint64_t i = 0; i < MOST && number % 8 >= 4; i++) {    /* or such as there are */
            const double value = (double)random_below(4000) / 100 - 20;
            if (is_double)
                z[i] = value;
            else
                ((float *)z)[i] = (float)value;
        }
        memset(found, 0, sizeof found);
        for (int own = 0; own < 2; own++) {
            const struct fd_activation_loops *loops = (own ? isa : &fd_generic)->activations;
            loops->apply[of][is_double](n, z, found[own][0]);
            loops->gradient[of][is_double](n, dy, found[own][0], found[own][1]);
        }
        for (int which = 0; which < 2; which++)    /* all of it: nothing is written after the last */
            check(same_numbers(found[0][which], found[1][which], is_double ? MOST : 2 * MOST, dtype),
                  which ? "activation's gradient" : "activation", isa->name, number);
    }
}

static double get(const void *array, int is_double, int64_t i)
{
    return is_double ? ((const double *)array)[i] : ((const float *)array)[i];
}

static void put(void *array, int is_double, int64_t i, double value)
{
    if (is_double)
        ((double *)array)[i] = value;
    else
        ((float *)array)[i] = (float)value;
}

/* Returns x y + z, rounded once or, for loops that do not fuse, twice */
static double fused(int is_double, int once, double x, double y, double z)
{
    if (!once)
        return is_double ? x * y + z : (float)((float)x * (float)y + (float)z);
    return is_double ? fma(x, y, z) : fmaf((float)x, (float)y, (float)z);
}

/* What products.h says of one element */
static double element(const fd_product *p, int is_double, int once, int64_t a, int64_t b, int64_t b_row, double c)
{
    for (uint64_t done = 0; done < p->k; done += FD_DEPTH) {
        double sum = 0;
        for (uint64_t r = done; r < p->k && r < done + FD_DEPTH; r++)
            sum = fused(is_double, once, get(p->a, is_double, a + (int64_t)r * p->a_column),
                        get(p->b, is_double, b + (int64_t)r * b_row), sum);
        c = fused(is_double, once, p->factor, sum, p->add || done ? c : 0);
    }
    return c;
}

/* Products of any shape and strides; what lies behind a row of c stays. */
static void products(const fd_kernels *isa)
{
    enum { ROWS = 15, COLUMNS = 300, K = 600, GAP = 3 };
    static double a[(ROWS + GAP) * (K + GAP)], b[(COLUMNS + GAP) * (K + GAP)];
    static double c[ROWS * (COLUMNS + GAP)];
    static _Alignas(64) double panels[2 * COLUMNS * K];
    const uint64_t ks[] = {1, 7, FD_DEPTH, 300, K};
    const int once = isa->products != &fd_generic_products;
    for (unsigned long number = 0; number < 240; number++) {
        const int is_double = number & 1, a_lies = number >> 1 & 1, b_lies = number >> 2 & 1;
        const uint64_t k = ks[number % 5];
        const int64_t m = (int64_t)(1 + random_below(ROWS)), n = (int64_t)(1 + random_below(COLUMNS));
        const int64_t b_row = b_lies ? 1 : n + GAP, b_column = b_lies ? (int64_t)k + GAP : 1;
        const fd_product p = {.m = (uint64_t)m, .n = (uint64_t)n, .k = k,
                              .factor = number % 3 ? 1 : 0.375, .add = number / 3 % 2,
                              .a = a, .b = b, .c = c, .c_row = n + GAP,
                              .a_row = a_lies ? 1 : (int64_t)k + GAP, .a_column = a_lies ? m + GAP : 1};
        const int64_t most = is_double ? 1 : 2;    /* elements in a double's place */
        for (int64_t i = 0; i < most * (int64_t)(sizeof a / sizeof *a); i++)
            put(a, is_double, i, (double)random_below(1 << 20) / 7 - 1e5);
        for (int64_t i = 0; i < most * (int64_t)(sizeof b / sizeof *b); i++)
            put(b, is_double, i, (double)random_below(1 << 20) / 3 - 1e5);
        for (int64_t i = 0; i < m * (n + GAP); i++)
            put(c, is_double, i, (double)i);
        check(fd_panels_bytes(isa->products, is_double, &p) <= sizeof panels, "product, panels",
              isa->name, number);
        fd_multiply(isa->products, is_double, &p, b_row, b_column, panels);
        int same = 1;
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n + GAP; j++) {
                const int64_t at = i * (n + GAP) + j;
                const double expected = j < n ? element(&p, is_double, once, i * p.a_row, j * b_column, b_row,
                                                        (double)at) : (double)at;
                same &= get(c, is_double, at) == expected;
            }
        check(same, "product", isa->name, number);
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[FD_NUM_DTYPES] = {2, 2, 4, 8};
    if (argc != 3) {
        printf("usage: test_kernels known_answers.txt cases.bin\n");
        return 2;
    }
    known_answers(argv[1]);
    FILE *file = fopen(argv[2], "rb");
    header h;
    unsigned long number = 0;
    while (file && fread(&h, sizeof h, 1, file) == 1) {
        const size_t size = sizes[h.dtype], bytes = h.n * size;
        char *x = malloc(bytes), *z = malloc(h.z_bytes), *y = malloc(bytes);
        uint8_t *packed = malloc((h.n + 7) / 8);
        read_all(file, x, bytes);
        read_all(file, z, h.z_bytes);
        read_all(file, y, bytes);
        read_all(file, packed, (h.n + 7) / 8);
        number++;
        for (const fd_kernels *const *isa = fd_available(); *isa; isa++)
            for (int variant = 0; variant < 8; variant++)
                run_case(*isa, &h, x, z, y, packed, size, variant, number);
        free(x), free(z), free(y), free(packed);
    }
    check(number > 100, "cases read", "file", number);
    if (file)
        fclose(file);
    for (const fd_kernels *const *isa = fd_available(); *isa; isa++) {
        empty(*isa);
        normal_variates(*isa);
        optimizers(*isa);
        flushed_states(*isa);
        softmax(*isa);
        activations(*isa);
        products(*isa);
        for (number = 1; number <= 300; number++) {
            shared_axes(*isa, number);
            blocks(*isa, number);
        }
    }
    products(&fd_generic);    /* the loops of processors that do not fuse */
    for (const fd_kernels *const *isa = fd_available(); *isa; isa++)
        printf("%s ", (*isa)->name);
    printf("\n%lu passed, %lu failed\n", checks - failures, failures);
    return failures != 0;
}

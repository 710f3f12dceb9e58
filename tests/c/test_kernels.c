/* All kernels, without Python: every instruction set of this machine against the reference's masks
 * and values (make_cases.py), and Philox against the published answers.
 *
 *     test_kernels known_answers.txt cases.bin
 *
 * Built natively with sanitizers, and for other processors to run under an emulator.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

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
    double scale;
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
                  .scale = h->scale, .stream = stream};
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
    }
    free(memory), free(mask), free(bools);
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
    for (const fd_kernels *const *isa = fd_available(); *isa; isa++)
        printf("%s ", (*isa)->name);
    printf("\n%lu passed, %lu failed\n", checks - failures, failures);
    return failures != 0;
}

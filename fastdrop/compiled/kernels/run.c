/* Operations with mask bits, chunk by chunk: while one chunk is applied, the next one is drawn. */
#include <string.h>

#include "bits.h"
#include "kernels.h"

static fd_operands operands_at(const fd_job *job, uint64_t at)
{
    const size_t size = fd_itemsize[job->dtype];
    fd_operands o = {.y = (char *)job->y + at * size, .scale = job->scale, .shift = job->shift,
                     .fill = job->fill, .stream = job->stream};
    o.x = (const char *)job->x + at * size;
    o.z = o.x;
    if (job->z)
        o.z = (const char *)job->z + (job->z_period ? at % job->z_period : at) * size;
    return o;
}

static void store_packed(const uint32_t *words, uint64_t at, uint64_t n, uint8_t *packed)
{
    memcpy(packed + at / 8, words, (n + 7) / 8);
    if (n % 8)
        packed[(at + n) / 8] &= (uint8_t)((1u << n % 8) - 1);
}

static void store_bools(const uint32_t *words, uint64_t at, uint64_t n, uint8_t *bools)
{
    for (uint64_t i = 0; i < n; i++)
        bools[at + i] = words[i / 32] >> (i % 32) & 1;
}

/* Adds n elements of y, from column `column` on, to the sums of their columns. */
static void add_columns(const fd_job *job, uint64_t column, uint64_t n, const char *y)
{
    const size_t size = fd_itemsize[job->dtype];
    const size_t sum_size = job->dtype == FD_FLOAT64 ? sizeof(double) : sizeof(float);
    while (n) {
        uint64_t length = job->sum_period - column;
        if (length > n)
            length = n;
        job->kernels->accumulate[job->dtype](length, y, (char *)job->column_sum + column * sum_size);
        y += length * size;
        n -= length;
        column = 0;
    }
}

/* Runs operations that take one word per element. */
static void run_normal(const fd_job *job, uint64_t start, uint64_t n)
{
    enum { CHUNK = 2048 };
    uint32_t words[CHUNK];
    for (uint64_t done = 0; done < n; done += CHUNK) {
        const uint64_t length = n - done < CHUNK ? n - done : CHUNK;
        const fd_operands operands = operands_at(job, start + done);
        fd_words(job->kernels, &job->bits->key, job->bits->offset + start + done, length, words);
        job->kernels->apply[job->op][job->dtype](words, length, &operands);
    }
    if (job->stream)
        job->kernels->fence();
}

void fd_run(const fd_job *job, uint64_t start, uint64_t n)
{
    if (job->op >= FD_NUM_BIT_OPS) {
        run_normal(job, start, n);
        return;
    }
    if (n == 0)    /* then axes may have length 0 as well, by which bits.c would divide */
        return;
    const int masked = !job->y || job->op < FD_NUM_MASKED_OPS || job->op == FD_SCALE_RUNS;
    uint32_t buffers[2][FD_TILE_WORDS], *words = buffers[0], *next = buffers[1];
    fd_walk walk;
    const int stored = masked && job->bits->packed;
    const uint64_t chunk = masked ? fd_chunk(job->bits) : FD_TILE;
    uint64_t length = n < chunk ? n : chunk;
    if (masked) {
        fd_walk_from(&walk, job->bits, start);
        fd_next_words(&walk, length, words, &(fd_pending){0});
    }
    for (uint64_t done = 0; done < n;) {
        const uint64_t at = start + done, left = n - done - length;
        const uint64_t next_length = left < chunk ? left : chunk;
        fd_operands operands;
        fd_pending pending = {job->op, job->dtype, words, NULL};
        if (job->y) {
            operands = operands_at(job, at);
            pending.operands = &operands;
        }
        if (masked && left && !stored)    /* then this chunk is a whole one */
            fd_next_words(&walk, next_length, next, &pending);
        if (pending.operands)
            job->kernels->apply[job->op][job->dtype](words, length, &operands);
        if (job->column_sum)
            add_columns(job, done % job->sum_period, length, operands.y);
        if (job->packed)
            store_packed(words, at, length, job->packed);
        if (job->bools)
            store_bools(words, at, length, job->bools);
        done += length;
        length = next_length;
        if (!stored) {    /* stored bits stay where they are: the next ones may be the same */
            uint32_t *const swap = words;
            words = next;
            next = swap;
        } else if (left)
            fd_next_words(&walk, length, words, NULL);
    }
    if (job->stream)
        job->kernels->fence();
}

/* XLA's handler: reads a call frame, and shares the work among XLA's own threads, if it lends them.
 *
 *   array of the call      B x D...            one or several arrays, each with a key
 *   its mask in memory     rows x length       stretches of D... that lie in one piece in the mask of
 *                                              the whole array: one row, unless D is a block of it
 *   units of work          a chunk of a row, or several short rows
 *
 * Along shared axes a bit decides on several elements. Then the array's mask is drawn first, row by
 * row, and applied in a second pass.
 */
#define _DEFAULT_SOURCE    /* madvise */
#include "xla.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/denormals.h"
#include "pool.h"

enum { UNIT = 32 * FD_TILE,            /* elements of a unit of work */
       HUGE_PAGES_PAY = 4 << 20 };     /* bytes, as in NumPy */

static fd_xla_settings settings;

void fd_xla_use(const fd_xla_settings *given)
{
    settings = *given;
}

/* ---- reading the frame --------------------------------------------------------------------------- */

static fd_xla_error *error(const fd_xla_call_frame *frame, int code, const char *message)
{
    fd_xla_error_create args = {sizeof args, NULL, message, code};
    return frame->api->error_create(&args);
}

static const void *attribute(const fd_xla_call_frame *frame, const char *name, int kind)
{
    for (int64_t i = 0; i < frame->attrs.size; i++) {
        const fd_xla_span *span = frame->attrs.names[i];
        if (span->len == strlen(name) && memcmp(span->ptr, name, span->len) == 0)
            return frame->attrs.types[i] == kind ? frame->attrs.attrs[i] : NULL;
    }
    return NULL;
}

static int read_double(const fd_xla_call_frame *frame, const char *name, double *value)
{
    const fd_xla_scalar *scalar = attribute(frame, name, FD_XLA_SCALAR);
    if (!scalar || scalar->dtype != FD_XLA_F64)
        return 0;
    memcpy(value, scalar->value, sizeof *value);
    return 1;
}

static int read_int(const fd_xla_call_frame *frame, const char *name, int64_t *value)
{
    const fd_xla_scalar *scalar = attribute(frame, name, FD_XLA_SCALAR);
    if (!scalar || scalar->dtype != FD_XLA_S64)
        return 0;
    memcpy(value, scalar->value, sizeof *value);
    return 1;
}

/* ---- a call -------------------------------------------------------------------------------------- */

/* An operand that all members of a batch may share along some axes. */
typedef struct {
    const fd_xla_buffer *buffer;
    uint64_t size;                       /* elements of a member */
    uint64_t stride[FD_MAX_DIMS];        /* of the batch axes, in members */
} operand;

typedef struct {
    fd_job job;              /* without x, y and z, which point to the first member's */
    double p;                /* negative if it is an operand */
    int batch, ndim;
    uint64_t members, batch_shape[FD_MAX_DIMS];
    uint64_t n;              /* elements of a member */
    operand key, offset, z, rate;
    uint64_t start;          /* of the block in the whole mask */
    /* the mask: rows of `length`, which lie `row_stride` apart along the outer axes */
    uint64_t rows, length;
    int outer;
    uint64_t row_shape[FD_MAX_DIMS], row_stride[FD_MAX_DIMS];
    /* if axes are shared: each row in whole bytes, and how the array's axes step through them */
    int shared;
    uint64_t row_bytes, mask_bytes;
    uint8_t *packed;
    int axes;
    uint64_t shape[FD_MAX_DIMS], stride[FD_MAX_DIMS];
    void *bias;              /* members' biases, each a tile longer: cyclic */
    uint64_t bias_bytes;
} call;

/* Returns the operand's index for a member of the batch. */
static uint64_t member_of(const call *c, const operand *o, uint64_t member)
{
    uint64_t at = 0;
    for (int d = c->batch - 1; d >= 0; d--) {
        at += member % c->batch_shape[d] * o->stride[d];
        member /= c->batch_shape[d];
    }
    return at;
}

static int take_operand(const call *c, operand *o, const fd_xla_buffer *buffer)
{
    uint64_t stride = 1;
    o->buffer = buffer;
    if (buffer->rank < c->batch)
        return 0;
    o->size = 1;
    for (int64_t d = c->batch; d < buffer->rank; d++)
        o->size *= (uint64_t)buffer->dims[d];
    for (int d = c->batch - 1; d >= 0; d--) {
        const uint64_t length = (uint64_t)buffer->dims[d];
        if (length != 1 && length != c->batch_shape[d])
            return 0;
        o->stride[d] = length == 1 ? 0 : stride;
        stride *= length;
    }
    return 1;
}

static int dtype_of(int type)
{
    switch (type) {
    case FD_XLA_F16: return FD_FLOAT16;
    case FD_XLA_BF16: return FD_BFLOAT16;
    case FD_XLA_F32: return FD_FLOAT32;
    case FD_XLA_F64: return FD_FLOAT64;
    default: return -1;
    }
}

static int has_bias(const call *c)
{
    return c->job.op == FD_BIAS || c->job.op == FD_BIAS_RELU;
}

static int is_normal(const call *c)
{
    return c->job.op == FD_NORMAL_SCALE || c->job.op == FD_NORMAL_ADD;
}

/* Lays out the rows of the mask, and how the block's axes step through them. */
static void lay_out(call *c, const int64_t *dims, const int64_t *strides)
{
    uint64_t place[FD_MAX_DIMS];         /* of the axes, in the mask's rows as they are stored */
    int d = c->ndim - 1;
    c->length = 1;
    for (; d >= 0; d--) {
        if (dims[d] == 1 || strides[d] == 0)
            place[d] = 0;
        else if ((uint64_t)strides[d] == c->length) {
            place[d] = c->length;
            c->length *= (uint64_t)dims[d];
        } else
            break;
    }
    c->row_bytes = (c->length + 7) / 8;
    c->rows = 1;
    c->outer = 0;
    uint64_t row = 1;
    for (; d >= 0; d--) {                /* innermost first */
        if (dims[d] == 1 || strides[d] == 0) {
            place[d] = 0;
            continue;
        }
        c->row_shape[c->outer] = (uint64_t)dims[d];
        c->row_stride[c->outer++] = (uint64_t)strides[d];
        place[d] = row * 8 * c->row_bytes;
        row *= (uint64_t)dims[d];
        c->rows *= (uint64_t)dims[d];
    }
    c->mask_bytes = c->rows * c->row_bytes;
    c->axes = 0;
    for (d = 0; d < c->ndim; d++) {
        if (dims[d] == 1)
            continue;
        const int last = c->axes - 1;
        if (last >= 0 && c->stride[last] == place[d] * (uint64_t)dims[d])
            c->shape[last] *= (uint64_t)dims[d];    /* neighbours of one kind are merged */
        else
            c->shape[c->axes++] = (uint64_t)dims[d];
        c->stride[c->axes - 1] = place[d];
    }
    if (c->axes == 0) {
        c->shape[0] = 1;
        c->stride[0] = 0;
        c->axes = 1;
    }
}

/* Returns where a row of the mask begins, counted from the block's first element. */
static uint64_t row_start(const call *c, uint64_t row)
{
    uint64_t at = 0;
    for (int d = 0; d < c->outer; d++) {
        at += row % c->row_shape[d] * c->row_stride[d];
        row /= c->row_shape[d];
    }
    return at;
}

static const char *read_call(const fd_xla_call_frame *frame, call *c)
{
    int64_t op, batch;
    const fd_xla_array *strides = attribute(frame, "strides", FD_XLA_ARRAY);
    if (!read_int(frame, "op", &op) || !read_int(frame, "batch", &batch) || !strides
        || strides->dtype != FD_XLA_S64 || !read_double(frame, "p", &c->p)
        || !read_double(frame, "scale", &c->job.scale) || !read_double(frame, "shift", &c->job.shift)
        || !read_double(frame, "fill", &c->job.fill))
        return "attributes";
    if (op < 0 || op >= FD_NUM_OPS)
        return "op";
    c->job.op = (fd_op)op;
    c->batch = (int)batch;
    const int second = op == FD_ADD || has_bias(c), traced = c->p < 0;
    if (frame->args.size != 4 + second + traced || frame->rets.size != 1)
        return "number of arguments";
    for (int64_t i = 0; i < frame->args.size; i++)
        if (frame->args.types[i] != FD_XLA_BUFFER)
            return "kinds of arguments";
    fd_xla_buffer *const *args = (fd_xla_buffer *const *)frame->args.args;
    const fd_xla_buffer *x = args[0], *y = frame->rets.args[0];
    const int dtype = dtype_of(x->dtype);
    if (dtype < 0 || y->dtype != x->dtype || x->rank != y->rank || x->rank > FD_MAX_DIMS
        || batch < 0 || batch > x->rank)
        return "x";
    c->job.dtype = (fd_dtype)dtype;
    c->ndim = (int)(x->rank - batch);
    c->members = c->n = 1;
    for (int64_t d = 0; d < x->rank; d++) {
        if (x->dims[d] != y->dims[d])
            return "shape of x";
        if (d < batch)
            c->members *= c->batch_shape[d] = (uint64_t)x->dims[d];
        else
            c->n *= (uint64_t)x->dims[d];
    }
    c->job.x = x->data;
    c->job.y = y->data;
    int i = 1;
    if (second) {
        if (!take_operand(c, &c->z, args[i]) || args[i]->dtype != x->dtype)
            return "z";
        const uint64_t units = c->ndim ? (uint64_t)x->dims[x->rank - 1] : 0;
        if (c->z.size != (has_bias(c) ? units : c->n))
            return "shape of z";
        i++;
    }
    if (!take_operand(c, &c->key, args[i]) || args[i]->dtype != FD_XLA_U32
        || (c->key.size != 1 && c->key.size != 2 && c->key.size != 4))
        return "key";
    i++;
    if (!take_operand(c, &c->offset, args[i]) || args[i]->dtype != FD_XLA_U32 || c->offset.size != 2)
        return "offset";
    i++;
    const fd_xla_buffer *starts = args[i];
    if (starts->rank != 1 || starts->dtype != FD_XLA_U32 || starts->dims[0] < c->ndim
        || strides->size < (size_t)c->ndim)
        return "starts";
    if (traced && (!take_operand(c, &c->rate, args[i + 1]) || c->rate.size != 1
                   || (c->rate.buffer->dtype != FD_XLA_F32 && c->rate.buffer->dtype != FD_XLA_F64)))
        return "p";
    const int64_t *steps = strides->data;
    for (int d = 0; d < c->ndim; d++) {
        c->start += (uint64_t)((const uint32_t *)starts->data)[d] * (uint64_t)steps[d];
        c->shared |= steps[d] == 0 && x->dims[batch + d] > 1;
    }
    lay_out(c, x->dims + batch, steps);
    if (is_normal(c) && c->shared)
        return "strides";
    return NULL;
}

/* ---- its work, in units -------------------------------------------------------------------------- */

/* Rows of one pass over the members, in units of a chunk of a row or of several rows */
typedef struct {
    const call *c;
    int drawing;             /* whether to draw the mask, or to apply it */
    uint64_t rows, length;   /* of a member */
    uint64_t chunks, bundle; /* chunks of a row, rows of a unit: one of the two is 1 */
    uint64_t units;
} pass;

static pass pass_of(const call *c, int drawing)
{
    pass p = {c, drawing, c->rows, c->length, 1, 1, 0};
    if (c->shared && !drawing) {
        p.rows = 1;
        p.length = c->n;
    }
    if (p.length > UNIT)
        p.chunks = (p.length + UNIT - 1) / UNIT;
    else if (p.length)
        p.bundle = UNIT / p.length;
    p.units = (p.rows * c->members + p.bundle - 1) / p.bundle * p.chunks;
    return p;
}

static double rate_of(const call *c, uint64_t member)
{
    const uint64_t at = member_of(c, &c->rate, member);
    const void *data = c->rate.buffer->data;
    return c->rate.buffer->dtype == FD_XLA_F32 ? ((const float *)data)[at] : ((const double *)data)[at];
}

/* Sets the job for a member of the batch: its key, p and operands. */
static void set_member(const call *c, const pass *pass, uint64_t member, fd_job *job, fd_bits *bits)
{
    const size_t size = fd_itemsize[c->job.dtype];
    const uint32_t *key = (const uint32_t *)c->key.buffer->data
                          + member_of(c, &c->key, member) * c->key.size;
    const uint64_t words = c->key.size;
    const uint64_t seed = words == 1 ? key[0] : (uint64_t)key[0] << 32 | key[1];
    const uint64_t number = words == 4 ? (uint64_t)key[2] << 32 | key[3] : 0;
    double p = c->p;
    *job = c->job;
    job->kernels = bits->kernels = *settings.kernels;
    job->bits = bits;
    if (p < 0) {
        p = rate_of(c, member);
        if (!(p >= 0 && p <= 1))
            p = p > 1 ? 1 : 0;    /* documented: the nearest probability; 0 for NaN */
        job->scale = p < 1 ? 1 / (1 - p) : 0;
    }
    fd_key_init(&bits->key, seed, number);
    bits->threshold = fd_threshold(p);
    bits->packed = NULL;
    if (pass->drawing) {
        job->x = job->y = NULL;
        job->packed = c->packed + member * c->mask_bytes;
        return;
    }
    if (c->shared) {
        bits->packed = c->packed + member * c->mask_bytes;
        bits->packed_bytes = c->mask_bytes;
        bits->ndim = c->axes;
        memcpy(bits->shape, c->shape, sizeof *c->shape * (size_t)c->axes);
        memcpy(bits->stride, c->stride, sizeof *c->stride * (size_t)c->axes);
    }
    job->x = (const char *)c->job.x + member * c->n * size;
    job->y = (char *)c->job.y + member * c->n * size;
    if (c->bias) {
        job->z = (const char *)c->bias + member_of(c, &c->z, member) * c->bias_bytes;
        job->z_period = c->z.size;
    } else if (c->z.buffer)
        job->z = (const char *)c->z.buffer->data + member_of(c, &c->z, member) * c->n * size;
}

static uint64_t offset_of(const call *c, uint64_t member)
{
    const uint32_t *words = (const uint32_t *)c->offset.buffer->data
                            + member_of(c, &c->offset, member) * 2;
    return ((uint64_t)words[0] << 32 | words[1]) + c->start;
}

static void run_unit(const pass *pass, uint64_t unit)
{
    const call *c = pass->c;
    const uint64_t first = unit / pass->chunks * pass->bundle, all = pass->rows * c->members;
    const uint64_t last = first + pass->bundle < all ? first + pass->bundle : all;
    const uint64_t from = unit % pass->chunks * UNIT;
    const uint64_t n = pass->length - from < UNIT ? pass->length - from : UNIT;
    uint64_t member = first / pass->rows;
    fd_job job;
    fd_bits bits;
    set_member(c, pass, member, &job, &bits);
    for (uint64_t row = first; row < last; row++) {
        if (row / pass->rows != member)
            set_member(c, pass, ++member, &job, &bits);
        const uint64_t own = row % pass->rows;
        const uint64_t begin = offset_of(c, member) + row_start(c, own);
        if (pass->drawing) {
            bits.offset = begin;
            job.packed = c->packed + member * c->mask_bytes + own * c->row_bytes;
            fd_run(&job, from, n);
        } else {
            bits.offset = begin - own * pass->length;    /* fd_run adds where it starts */
            fd_run(&job, own * pass->length + from, n);
        }
    }
}

/* ---- sharing it among XLA's threads -------------------------------------------------------------- */

/* XLA promises neither that a task runs nor when. So the caller takes units as well, until none is
   left, and waits for those that others have begun. Tasks that come later find nothing to do, and
   the last one to leave frees this. */
typedef struct {
    pass pass;
    _Atomic uint64_t next, done;
    _Atomic int users;
    pthread_mutex_t lock;
    pthread_cond_t all_done;
} crowd;

static void leave(crowd *w)
{
    if (atomic_fetch_sub(&w->users, 1) == 1) {
        pthread_cond_destroy(&w->all_done);
        pthread_mutex_destroy(&w->lock);
        free(w);
    }
}

static void take_units(crowd *w)
{
    const fd_float_mode before = fd_get_float_mode();
    fd_restore_float_mode(fd_ieee_float_mode(before));    /* XLA's threads flush denormal numbers */
    uint64_t unit;
    while ((unit = atomic_fetch_add(&w->next, 1)) < w->pass.units) {
        run_unit(&w->pass, unit);
        if (atomic_fetch_add(&w->done, 1) + 1 == w->pass.units) {
            pthread_mutex_lock(&w->lock);
            pthread_cond_signal(&w->all_done);
            pthread_mutex_unlock(&w->lock);
        }
    }
    fd_restore_float_mode(before);
}

static void task(void *data)
{
    take_units(data);
    leave(data);
}

static void run_share(int share, int shares, void *argument)
{
    const pass *p = argument;
    const uint64_t last = p->units * (uint64_t)(share + 1) / (uint64_t)shares;
    for (uint64_t unit = p->units * (uint64_t)share / (uint64_t)shares; unit < last; unit++)
        run_unit(p, unit);
}

/* Runs a pass on the caller's thread and threads of our own. */
static void run_in_pool(pass *pass, int threads)
{
    const fd_float_mode before = fd_get_float_mode();
    fd_restore_float_mode(fd_ieee_float_mode(before));
    fd_pool_run(run_share, threads, pass, FD_ASLEEP);
    fd_restore_float_mode(before);
}

static void run_pass(const fd_xla_call_frame *frame, pass *pass, int threads)
{
    if ((uint64_t)threads > pass->units)
        threads = pass->units ? (int)pass->units : 1;
    const int lends = frame->api->schedule != NULL;
    crowd *w = lends && threads > 1 ? malloc(sizeof *w) : NULL;
    if (!w) {
        run_in_pool(pass, lends ? 1 : threads);
        return;
    }
    w->pass = *pass;
    atomic_init(&w->next, 0);
    atomic_init(&w->done, 0);
    atomic_init(&w->users, 1);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->all_done, NULL);
    for (int i = 1; i < threads; i++) {
        fd_xla_schedule args = {sizeof args, NULL, frame->ctx, task, w};
        atomic_fetch_add(&w->users, 1);
        frame->api->schedule(&args);
    }
    take_units(w);
    pthread_mutex_lock(&w->lock);
    while (atomic_load(&w->done) < pass->units)
        pthread_cond_wait(&w->all_done, &w->lock);
    pthread_mutex_unlock(&w->lock);
    leave(w);
}

static int threads_of(const fd_xla_call_frame *frame)
{
    int64_t n = 1;
    fd_xla_num_threads args = {sizeof args, NULL, frame->ctx, &n};
    frame->api->num_threads(&args);
    return n < 1 ? 1 : n > 1024 ? 1024 : (int)n;
}

/* ---- the handler --------------------------------------------------------------------------------- */

/* Repeats each bias for a tile's length, so that a tile finds its part in one piece. */
static int repeat_biases(call *c)
{
    const size_t size = fd_itemsize[c->job.dtype], units = c->z.size * size;
    uint64_t biases = 1;
    for (int d = 0; d < c->batch; d++)
        biases *= (uint64_t)c->z.buffer->dims[d];
    c->bias_bytes = units + FD_TILE * size;
    c->bias = malloc(biases * c->bias_bytes);
    if (!c->bias)
        return 0;
    for (uint64_t b = 0; b < biases; b++) {
        char *to = (char *)c->bias + b * c->bias_bytes;
        memcpy(to, (const char *)c->z.buffer->data + b * units, units);
        for (uint64_t done = units; done < c->bias_bytes;) {
            const uint64_t left = c->bias_bytes - done, piece = done < left ? done : left;
            memcpy(to + done, to, piece);
            done += piece;
        }
    }
    return 1;
}

/* XLA gives large results fresh memory, where faults of huge pages cost a third of small ones'. */
static void want_huge_pages(void *memory, uint64_t bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t page = 1 << 16;      /* no system has larger ones */
    const uintptr_t first = ((uintptr_t)memory + page - 1) & ~(page - 1);
    const uintptr_t last = ((uintptr_t)memory + bytes) & ~(page - 1);
    if (bytes >= HUGE_PAGES_PAY && first < last)
        madvise((void *)first, last - first, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

/* Returns the nanoseconds of a clock. */
static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static fd_xla_error *run_call(const fd_xla_call_frame *frame, call *c)
{
    const uint64_t total = c->members * c->n;
    const size_t size = fd_itemsize[c->job.dtype];
    if (total == 0)
        return NULL;
    if (has_bias(c) && !repeat_biases(c))
        return error(frame, FD_XLA_RESOURCE_EXHAUSTED, "fastdrop: out of memory");
    want_huge_pages(c->job.y, total * size);
    if (c->shared) {
        c->packed = malloc(c->members * c->mask_bytes);
        if (!c->packed)
            return error(frame, FD_XLA_RESOURCE_EXHAUSTED, "fastdrop: out of memory");
    }
    fd_bits bits = {.threshold = c->p < 0 ? 0x55555555 : fd_threshold(c->p), .packed = c->packed};
    fd_job like = c->job;
    like.bits = &bits;
    const uint64_t bytes = total * size;
    const double expected = settings.work(&like, total, bytes);
    const int threads = settings.threads_pay(expected, bytes) ? threads_of(frame) : 1;
    if (c->shared) {
        pass draw = pass_of(c, 1);
        run_pass(frame, &draw, threads);
    }
    pass apply = pass_of(c, 0);
    const int aligned = (uintptr_t)c->job.y % 64 == 0
                        && (apply.rows * c->members == 1 || apply.length * size % 64 == 0);
    like.stream = c->job.stream = aligned && settings.goes_around(&like, bytes, threads);
    if (c->job.op == FD_SCALE && !c->job.stream && c->shared && c->stride[c->axes - 1] == 0
        && c->shape[c->axes - 1] >= 512)
        c->job.op = FD_SCALE_RUNS;
    const double start = settings.teaches(&like, bytes, threads, expected) ? now() : 0;
    run_pass(frame, &apply, threads);
    if (start > 0)
        settings.learn(&like, bytes, threads, (now() - start) / expected);
    return NULL;
}

/* XLA asks for the version that a handler was made for. It must be neither one that XLA does not
   know yet, nor one that it may no longer know. */
static void tell_version(const fd_xla_call_frame *frame, fd_xla_metadata *metadata)
{
    const fd_xla_version *theirs = &frame->api->api_version;
    metadata->api_version.major_version = FD_XLA_MAJOR;
    metadata->api_version.minor_version = FD_XLA_MINOR;
    if (theirs->major_version == FD_XLA_MAJOR && theirs->minor_version < FD_XLA_MINOR)
        metadata->api_version.minor_version = theirs->minor_version;
    metadata->traits = 0;
}

fd_xla_error *fd_xla_masked(fd_xla_call_frame *frame)
{
    const fd_xla_extension *extension = frame->extension_start;
    if (extension && extension->type == FD_XLA_METADATA) {
        tell_version(frame, ((const fd_xla_metadata_extension *)extension)->metadata);
        return NULL;
    }
    if (frame->stage != FD_XLA_EXECUTE)
        return NULL;
    call c;
    memset(&c, 0, sizeof c);
    const char *wrong = read_call(frame, &c);
    if (wrong) {
        char message[64] = "fastdrop: unexpected ";
        strncat(message, wrong, sizeof message - strlen(message) - 1);
        return error(frame, FD_XLA_INVALID_ARGUMENT, message);
    }
    fd_xla_error *failed = run_call(frame, &c);
    free(c.packed);
    free(c.bias);
    return failed;
}

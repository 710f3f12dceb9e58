/* XLA's interface for foreign functions, as far as one handler needs it, and the handler.
 *
 * The declarations are XLA's own (jaxlib/include/xla/ffi/api/c_api.h) with our names. So the
 * compiled module needs no jaxlib, neither when it is built nor when it is loaded, and one build
 * serves all.
 * These fields lie at the same places in all versions of the interface from 0.1 to 0.5, and
 * tests/adapters/jax/test_jax_interface.py compares them with the header of the installed jaxlib.
 */
#ifndef FASTDROP_XLA_H
#define FASTDROP_XLA_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* The newest version that the comparison was made with. */
enum { FD_XLA_MAJOR = 0, FD_XLA_MINOR = 5 };

typedef enum {
    FD_XLA_U32 = 8, FD_XLA_F16 = 10, FD_XLA_F32 = 11, FD_XLA_F64 = 12, FD_XLA_BF16 = 16,
    FD_XLA_S64 = 5
} fd_xla_type;

enum { FD_XLA_METADATA = 1, FD_XLA_EXECUTE = 3, FD_XLA_BUFFER = 1, FD_XLA_ARRAY = 1,
       FD_XLA_SCALAR = 3, FD_XLA_INVALID_ARGUMENT = 3, FD_XLA_RESOURCE_EXHAUSTED = 8 };

typedef struct fd_xla_error fd_xla_error;
typedef struct fd_xla_context fd_xla_context;

typedef struct fd_xla_extension {
    size_t struct_size;
    int type;
    struct fd_xla_extension *next;
} fd_xla_extension;

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    int major_version, minor_version;
} fd_xla_version;

typedef struct {
    size_t struct_size;
    fd_xla_version api_version;
    uint32_t traits;
} fd_xla_metadata;    /* its first fields */

typedef struct {
    fd_xla_extension extension_base;
    fd_xla_metadata *metadata;
} fd_xla_metadata_extension;

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    const char *message;
    int errc;
} fd_xla_error_create;

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    fd_xla_context *ctx;
    void (*task)(void *data);
    void *data;
} fd_xla_schedule;

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    fd_xla_context *ctx;
    int64_t *num_threads;
} fd_xla_num_threads;

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    fd_xla_version api_version;
    const void *internal_api;
    fd_xla_error *(*error_create)(fd_xla_error_create *);
    void *error_get_message, *error_destroy, *handler_register, *stream_get, *type_register,
        *execution_context_get, *state_set, *state_get, *device_memory_allocate,
        *device_memory_free;
    fd_xla_error *(*schedule)(fd_xla_schedule *);
    fd_xla_error *(*num_threads)(fd_xla_num_threads *);
} fd_xla_api;    /* its first fields */

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    int dtype;
    void *data;
    int64_t rank;
    int64_t *dims;
} fd_xla_buffer;

typedef struct {
    int dtype;
    void *value;
} fd_xla_scalar;

typedef struct {
    int dtype;
    size_t size;
    void *data;
} fd_xla_array;

typedef struct {
    const char *ptr;
    size_t len;
} fd_xla_span;

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    int64_t size;
    int *types;
    void **args;
} fd_xla_args;    /* for arguments and for results */

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    int64_t size;
    int *types;
    fd_xla_span **names;
    void **attrs;
} fd_xla_attrs;

typedef struct {
    size_t struct_size;
    fd_xla_extension *extension_start;
    const fd_xla_api *api;
    fd_xla_context *ctx;
    int stage;
    fd_xla_args args, rets;
    fd_xla_attrs attrs;
} fd_xla_call_frame;    /* its first fields */

#if UINTPTR_MAX == UINT64_MAX
_Static_assert(offsetof(fd_xla_call_frame, args) == 40, "call frame");
_Static_assert(offsetof(fd_xla_call_frame, attrs) == 120, "call frame");
_Static_assert(offsetof(fd_xla_buffer, dims) == 40, "buffer");
_Static_assert(offsetof(fd_xla_api, schedule) == 136, "interface");
#endif

/* What the handler takes from the module it is compiled into. */
typedef struct {
    const fd_kernels *const *kernels;    /* those in use */
    /* returns the nanoseconds that one thread of a known machine takes for n elements, writing so
       many bytes */
    double (*work)(const fd_job *job, uint64_t n, uint64_t bytes);
    /* tells whether other threads pay, as far as calls with so many bytes have been seen here */
    int (*threads_pay)(double work, uint64_t bytes);
    /* tells whether to write around the cache */
    int (*goes_around)(const fd_job *job, uint64_t bytes, int threads);
    /* tells whether this call's time is of use */
    int (*teaches)(const fd_job *job, uint64_t bytes, int threads, double work);
    /* is told that it took so many times as long */
    void (*learn)(const fd_job *job, uint64_t bytes, int threads, double times);
} fd_xla_settings;

void fd_xla_use(const fd_xla_settings *settings);

/* The handler "fastdrop": a masked operation on an array, on a block of one, or on a batch of them.
 *
 * Shapes: B... are batch axes, over which the array, or the block, of shape D... is repeated; the
 * others may have 1 there.
 *
 *   x       (B..., D...)    float
 *   z       like x, or with "bias" and "bias relu" (B..., last of D); only with an operation that
 *           has a second operand
 *   key     (B..., 1, 2 or 4) of uint32: seed and call, high word first, what is absent 0
 *   offset  (B..., 2) of uint32, high word first
 *   starts  (at least as many as D has axes) of uint32: the place of the block in the array
 *   p       (B...) of float32 or float64; only where the attribute p is negative
 *   result  (B..., D...)
 *
 * Attributes: op (an fd_op), batch (the number of axes B), strides (of D's axes in the mask of the
 * whole array, in elements; 0 along shared axes), p, scale, shift, fill. With p as an operand, scale
 * is 1 / (1 - p).
 *
 * tensorflow.c calls it, too, with an interface that has no `schedule`: threads of pool.h then help. */
fd_xla_error *fd_xla_masked(fd_xla_call_frame *frame);

#endif

/* TensorFlow's op: describes a call as XLA would, and leaves it to XLA's handler. */
#include "tensorflow.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "xla.h"

#define FIELD(result, name, arguments) result(*name) arguments;
static struct { FD_TF_FUNCTIONS(FIELD) } tf;

static int (*threads_allowed)(void);

/* ---- what the handler asks of XLA ---------------------------------------------------------------- */

struct fd_xla_error {
    TF_Code code;
    char message[64];
};

static fd_xla_error *keep_error(fd_xla_error_create *args)
{
    static _Thread_local fd_xla_error error;
    error.code = (TF_Code)args->errc;    /* both have the numbers of absl's codes */
    strncpy(error.message, args->message, sizeof error.message - 1);
    return &error;
}

static fd_xla_error *num_threads(fd_xla_num_threads *args)
{
    *args->num_threads = threads_allowed();
    return NULL;
}

static const fd_xla_api api = {.error_create = keep_error, .num_threads = num_threads};

/* ---- reading the inputs -------------------------------------------------------------------------- */

/* An input. Its data stay while the op computes, unlike the TF_Tensor: as long as there is one,
   nobody else can have the memory. */
typedef struct {
    TF_DataType type;
    const void *data;
    int64_t count;
    int ndim;
    int64_t dims[FD_MAX_DIMS];
} input;

static int read_input(TF_OpKernelContext *context, int i, input *in, TF_Status *status)
{
    TF_Tensor *tensor = NULL;
    tf.GetInput(context, i, &tensor, status);
    if (!tensor)
        return 0;
    in->type = tf.TensorType(tensor);
    in->data = tf.TensorData(tensor);
    in->count = tf.TensorElementCount(tensor);
    in->ndim = tf.NumDims(tensor);
    for (int d = 0; d < in->ndim && d < FD_MAX_DIMS; d++)
        in->dims[d] = tf.Dim(tensor, d);
    tf.DeleteTensor(tensor);
    return in->ndim <= FD_MAX_DIMS;
}

static int xla_type(TF_DataType type)
{
    switch (type) {
    case TF_HALF: return FD_XLA_F16;
    case TF_BFLOAT16: return FD_XLA_BF16;
    case TF_FLOAT: return FD_XLA_F32;
    case TF_DOUBLE: return FD_XLA_F64;
    default: return -1;
    }
}

/* Computes the strides of x's axes in the mask; returns 0 if an axis is none of x's. */
static int lay_out(const input *x, const input *shared_axes, int64_t *strides)
{
    uint8_t shared[FD_MAX_DIMS] = {0};
    for (int64_t i = 0; i < shared_axes->count; i++) {
        const int64_t axis = ((const int64_t *)shared_axes->data)[i];
        if (axis < 0 || axis >= x->ndim)
            return 0;
        shared[axis] = 1;
    }
    int64_t stride = 1;
    for (int d = x->ndim - 1; d >= 0; d--) {
        strides[d] = shared[d] ? 0 : stride;
        if (!shared[d])
            stride *= x->dims[d];
    }
    return 1;
}

/* ---- the op -------------------------------------------------------------------------------------- */

/* Returns a word of a key; negative ones have 32 bits, as for `key_of` in fastdrop/keras/rules.py. */
static uint64_t word(int64_t number)
{
    return number < 0 ? (uint32_t)number : (uint64_t)number;
}

/* Calls the handler as XLA does. */
static fd_xla_error *call_handler(int64_t op, const input *x, void *y, const int64_t *key,
                                  int64_t *strides, double *rule)
{
    static const uint32_t zeros[FD_MAX_DIMS];
    enum { OP, BATCH, STRIDES, P, SCALE, SHIFT, FILL, ATTRIBUTES };
    static fd_xla_span names[ATTRIBUTES] = {{"op", 2},    {"batch", 5}, {"strides", 7}, {"p", 1},
                                            {"scale", 5}, {"shift", 5}, {"fill", 4}};
    const uint64_t seed = word(key[0]), number = word(key[1]);
    uint32_t words[] = {(uint32_t)(seed >> 32), (uint32_t)seed, (uint32_t)(number >> 32),
                        (uint32_t)number};
    int64_t batch = 0, four = 4, two = 2, ndim = x->ndim;
    fd_xla_buffer of_x = {.dtype = xla_type(x->type), .data = (void *)x->data, .rank = ndim,
                          .dims = (int64_t *)x->dims};
    fd_xla_buffer of_y = of_x;
    of_y.data = y;
    fd_xla_buffer of_key = {.dtype = FD_XLA_U32, .data = words, .rank = 1, .dims = &four};
    fd_xla_buffer offset = {.dtype = FD_XLA_U32, .data = (void *)zeros, .rank = 1, .dims = &two};
    fd_xla_buffer starts = {.dtype = FD_XLA_U32, .data = (void *)zeros, .rank = 1, .dims = &ndim};
    void *args[] = {&of_x, &of_key, &offset, &starts}, *rets[] = {&of_y};
    int arg_types[] = {FD_XLA_BUFFER, FD_XLA_BUFFER, FD_XLA_BUFFER, FD_XLA_BUFFER};
    fd_xla_scalar scalars[ATTRIBUTES] = {[OP] = {FD_XLA_S64, &op}, [BATCH] = {FD_XLA_S64, &batch}};
    fd_xla_array array = {FD_XLA_S64, (size_t)ndim, strides};
    int attr_types[ATTRIBUTES];
    fd_xla_span *attr_names[ATTRIBUTES];
    void *attrs[ATTRIBUTES];
    for (int i = 0; i < ATTRIBUTES; i++) {
        if (i >= P)
            scalars[i] = (fd_xla_scalar){FD_XLA_F64, rule + (i - P)};
        attr_types[i] = i == STRIDES ? FD_XLA_ARRAY : FD_XLA_SCALAR;
        attr_names[i] = &names[i];
        attrs[i] = i == STRIDES ? (void *)&array : (void *)&scalars[i];
    }
    fd_xla_call_frame frame = {
        .api = &api,
        .stage = FD_XLA_EXECUTE,
        .args = {.size = 4, .types = arg_types, .args = args},
        .rets = {.size = 1, .types = arg_types, .args = rets},
        .attrs = {.size = ATTRIBUTES, .types = attr_types, .names = attr_names, .attrs = attrs},
    };
    return fd_xla_masked(&frame);
}

static const char *run(int64_t op, TF_OpKernelContext *context, TF_Status *status)
{
    input x, key, shared_axes, rule;
    int64_t strides[FD_MAX_DIMS];
    double numbers[4];
    if (!read_input(context, 0, &x, status) || !read_input(context, 1, &key, status)
        || !read_input(context, 2, &shared_axes, status) || !read_input(context, 3, &rule, status))
        return "fastdrop: unexpected inputs";
    if (key.count != 2)
        return "fastdrop: unexpected key";
    if (!lay_out(&x, &shared_axes, strides))
        return "fastdrop: unexpected shared_axes";
    if (rule.count != 4)
        return "fastdrop: unexpected rule";
    memcpy(numbers, rule.data, sizeof numbers);
    if (!(numbers[0] >= 0 && numbers[0] <= 1))
        return "fastdrop: unexpected p";
    const int of_x = 0;
    TF_Tensor *y = tf.ForwardInputOrAllocateOutput(context, &of_x, 1, 0, x.dims, x.ndim, NULL, status);
    if (!y || tf.GetCode(status) != TF_OK)
        return "fastdrop: out of memory";
    const fd_xla_error *error = NULL;
    if (x.count)    /* else strides of 0 would look like shared axes */
        error = call_handler(op, &x, tf.TensorData(y), key.data, strides, numbers);
    tf.DeleteTensor(y);
    if (!error)
        return NULL;
    tf.SetStatus(status, error->code, error->message);
    return error->message;
}

static void *create(TF_OpKernelConstruction *construction)
{
    int64_t op = -1;    /* which the handler refuses */
    TF_Status *status = tf.NewStatus();
    tf.OpKernelConstruction_GetAttrInt64(construction, "op", &op, status);
    tf.DeleteStatus(status);
    return (void *)(intptr_t)op;
}

static void compute(void *op, TF_OpKernelContext *context)
{
    TF_Status *status = tf.NewStatus();
    const char *wrong = run((intptr_t)op, context, status);
    if (wrong) {
        if (tf.GetCode(status) == TF_OK)
            tf.SetStatus(status, TF_INVALID_ARGUMENT, wrong);
        tf.OpKernelContext_Failure(context, status);
    }
    tf.DeleteStatus(status);
}

static void infer_shape(TF_ShapeInferenceContext *context, TF_Status *status)
{
    TF_ShapeHandle *shape = tf.NewShapeHandle();
    tf.ShapeInferenceContextGetInput(context, 0, shape, status);
    if (tf.GetCode(status) == TF_OK)
        tf.ShapeInferenceContextSetOutput(context, 0, shape, status);
    tf.DeleteShapeHandle(shape);
}

/* ---- registering --------------------------------------------------------------------------------- */

static const char *look_up(void *library)
{
#define LOOK_UP(result, name, arguments)                                                           \
    *(void **)&tf.name = dlsym(library, "TF_" #name);                                              \
    if (!tf.name)                                                                                  \
        return "no TF_" #name;
    FD_TF_FUNCTIONS(LOOK_UP)
    return NULL;
}

static const char *register_op(void)
{
    TF_Status *status = tf.NewStatus();
    TF_OpDefinitionBuilder *op = tf.NewOpDefinitionBuilder("FastdropMasked");
    tf.OpDefinitionBuilderAddAttr(op, "T: {half, bfloat16, float, double}");
    tf.OpDefinitionBuilderAddAttr(op, "op: int");
    tf.OpDefinitionBuilderAddInput(op, "x: T");
    tf.OpDefinitionBuilderAddInput(op, "key: int64");
    tf.OpDefinitionBuilderAddInput(op, "shared_axes: int64");
    tf.OpDefinitionBuilderAddInput(op, "rule: double");
    tf.OpDefinitionBuilderAddOutput(op, "y: T");
    tf.OpDefinitionBuilderSetShapeInferenceFunction(op, infer_shape);
    tf.RegisterOpDefinition(op, status);
    if (tf.GetCode(status) == TF_OK)
        tf.RegisterKernelBuilder("FastdropMasked",
                                 tf.NewKernelBuilder("FastdropMasked", "CPU", create, compute, NULL),
                                 status);
    const int failed = tf.GetCode(status) != TF_OK;
    tf.DeleteStatus(status);
    return failed ? "the op was refused" : NULL;
}

const char *fd_tf_register(void *library, int (*most_threads)(void))
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static const char *wrong = "not registered";
    static int tried;    /* TensorFlow ends the process at a second op of the same name */
    pthread_mutex_lock(&lock);
    if (!tried) {
        threads_allowed = most_threads;
        wrong = look_up(library);
        if (!wrong) {
            tried = 1;
            wrong = register_op();
        }
    }
    pthread_mutex_unlock(&lock);
    return wrong;
}

/* TensorFlow's C interface for ops and kernels, as far as one op needs it, and the op.
 *
 * The declarations are TensorFlow's own (tensorflow/c/ops.h, kernels.h, tf_tensor.h, tf_status.h).
 * The functions are looked up in TensorFlow's library when the op is registered, so one build serves
 * all versions that have them.
 * tests/adapters/keras/tensorflow_cases.py compares their types with the
 * headers of the installed TensorFlow.
 */
#ifndef FASTDROP_TENSORFLOW_H
#define FASTDROP_TENSORFLOW_H

#include <stddef.h>
#include <stdint.h>

#ifndef TENSORFLOW_C_OPS_H_    /* by the test, which includes TensorFlow's headers first */
typedef enum {
    TF_FLOAT = 1, TF_DOUBLE = 2, TF_INT64 = 9, TF_BFLOAT16 = 14, TF_HALF = 19
} TF_DataType;
typedef enum { TF_OK = 0, TF_INVALID_ARGUMENT = 3, TF_RESOURCE_EXHAUSTED = 8 } TF_Code;

typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_OpKernelContext TF_OpKernelContext;
#endif

/* type of the result, name without TF_, types of the arguments */
#define FD_TF_FUNCTIONS(f)                                                                         \
    f(TF_Status *, NewStatus, (void))                                                              \
    f(void, DeleteStatus, (TF_Status *))                                                           \
    f(void, SetStatus, (TF_Status *, TF_Code, const char *))                                       \
    f(TF_Code, GetCode, (const TF_Status *))                                                       \
    f(void, DeleteTensor, (TF_Tensor *))                                                           \
    f(TF_DataType, TensorType, (const TF_Tensor *))                                                \
    f(int, NumDims, (const TF_Tensor *))                                                           \
    f(int64_t, Dim, (const TF_Tensor *, int))                                                      \
    f(int64_t, TensorElementCount, (const TF_Tensor *))                                            \
    f(void *, TensorData, (const TF_Tensor *))                                                     \
    f(TF_OpDefinitionBuilder *, NewOpDefinitionBuilder, (const char *))                            \
    f(void, OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder *, const char *))                  \
    f(void, OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder *, const char *))                 \
    f(void, OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder *, const char *))                \
    f(void, OpDefinitionBuilderSetShapeInferenceFunction,                                          \
      (TF_OpDefinitionBuilder *, void (*)(TF_ShapeInferenceContext *, TF_Status *)))               \
    f(void, RegisterOpDefinition, (TF_OpDefinitionBuilder *, TF_Status *))                         \
    f(TF_ShapeHandle *, NewShapeHandle, (void))                                                    \
    f(void, DeleteShapeHandle, (TF_ShapeHandle *))                                                 \
    f(void, ShapeInferenceContextGetInput,                                                         \
      (TF_ShapeInferenceContext *, int, TF_ShapeHandle *, TF_Status *))                            \
    f(void, ShapeInferenceContextSetOutput,                                                        \
      (TF_ShapeInferenceContext *, int, TF_ShapeHandle *, TF_Status *))                            \
    f(TF_KernelBuilder *, NewKernelBuilder,                                                        \
      (const char *, const char *, void *(*)(TF_OpKernelConstruction *),                           \
       void (*)(void *, TF_OpKernelContext *), void (*)(void *)))                                  \
    f(void, RegisterKernelBuilder, (const char *, TF_KernelBuilder *, TF_Status *))                \
    f(void, OpKernelConstruction_GetAttrInt64,                                                     \
      (TF_OpKernelConstruction *, const char *, int64_t *, TF_Status *))                           \
    f(void, GetInput, (TF_OpKernelContext *, int, TF_Tensor **, TF_Status *))                      \
    f(TF_Tensor *, ForwardInputOrAllocateOutput,                                                   \
      (TF_OpKernelContext *, const int *, int, int, const int64_t *, int, int *, TF_Status *))     \
    f(void, OpKernelContext_Failure, (TF_OpKernelContext *, TF_Status *))

/* Registers the op, at the first call only. `library` is TensorFlow's, as dlopen returns it, and
 * most_threads returns how many threads a call may take. Returns NULL, or what went wrong.
 *
 * The op "FastdropMasked": a masked operation on an array, which XLA's handler (xla.h) computes.
 *
 *   x            T, one of half, bfloat16, float, double
 *   key          (2) of int64: seed and call
 *   shared_axes  (any number) of int64: axes along which a decision is shared, counted from 0
 *   rule         (4) of double: p, scale, shift, fill
 *   y            like x, and in its memory if nobody else needs that
 *
 * Attributes: T, op (an fd_op without a second operand). */
const char *fd_tf_register(void *library, int (*most_threads)(void));

#endif

/* Activation functions, element by element, and their gradients.
 *
 * Every operation is rounded once, in the order written, in the type of the arrays. exp is that of
 * softmax.h: m 2^n.
 *
 *     sigmoid     e = 2^64 exp(-|z|)                         0 where exp is below the subnormals
 *                 y = (z < 0 ? e : 2^64) / (2^64 + e)
 *                 dz = dy y (1 - y)
 *
 *     tanh        e = exp(-2 |z|), s = z^2
 *                 |y| = |z| - |z| s (P(s) / Q(s))            |z| < 5/8
 *                       1 - 2 e / (1 + e)                    otherwise
 *                 dz = dy (1 - y y)
 *
 * e is 2^64 times as large as it might be, so that no more than the quotient is subnormal.
 * P and Q come from Lambert's continued fraction, tanh(z) = z / (1 + s / (3 + s / (5 + ...))), up
 * to 15. Where it is used, what is left out is less than 1e-17 of tanh(z).
 *
 * tanh is within 1.5 units in the last place, sigmoid within 2.5 (tests/layers/test_activations.py).
 */
#ifndef FASTDROP_ACTIVATIONS_H
#define FASTDROP_ACTIVATIONS_H

#include <stddef.h>

typedef enum { FD_SIGMOID, FD_TANH, FD_NUM_ACTIVATIONS } fd_activation;

/* The loops of one instruction set, [0] for float32 and [1] for float64 */
struct fd_activation_loops {
    /* y may be z */
    void (*apply[FD_NUM_ACTIVATIONS][2])(size_t n, const void *z, void *y);
    /* dz may be dy or y */
    void (*gradient[FD_NUM_ACTIVATIONS][2])(size_t n, const void *dy, const void *y, void *dz);
};

#endif

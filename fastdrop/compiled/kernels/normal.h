/* Coefficients of the inverse normal distribution function in loops.h, lowest power first.
 *
 * z = (word + 1/2 - 2^31) P(v) / Q(v), v = -log2(1 - x^2) in [0, 31], x = (word + 1/2) / 2^31 - 1.
 * The quotient interpolates the exact one, computed with 60 digits, at the Chebyshev nodes of
 * log(v log(2) + c), c = 4 for float32 and 8 for float64. All coefficients are positive, so that
 * nothing cancels. Relative error: 2.6e-8 and 1.2e-16.
 * log2(m) = f L(f^2), f = (m - 1) / (m + 1), the series of 2 artanh(f) / log(2).
 *
 * Rounding included, a float32 variate is within 5 and a float64 one within 8 units in the last
 * place (tests/masks/test_noise.py).
 */
#ifndef FASTDROP_NORMAL_H
#define FASTDROP_NORMAL_H

/* 2^62 sqrt(2), as the bits of a float and of a double */
#define ROOT_F32 0x5EB504F3
#define ROOT_F64 0x43D6A09E667F3BCD

enum { vf32_LOG = 3, vf32_P = 6, vf32_Q = 5, vf64_LOG = 9, vf64_P = 13, vf64_Q = 13 };

#define LOG2_E 1.4426950408889634
static const double vf32_log[vf32_LOG + 1] = {2 * LOG2_E, 2 * LOG2_E / 3, 2 * LOG2_E / 5,
                                              2 * LOG2_E / 7};
static const double vf32_p[vf32_P + 1] = {
    5.8361987155191694e-10,  1.44633203608483618e-10, 2.04491623095945742e-11,
    1.9578529779242274e-12,  1.24143126375644264e-13, 4.56085586118588902e-15,
    1.05053634655850455e-17};
static const double vf32_q[vf32_Q + 1] = {
    1.0,                     0.0663552585720338605,   0.0167365451397673903,
    0.000778866771927461976, 5.86161540631322122e-5,  6.25527639112882148e-7};

static const double vf64_log[vf64_LOG + 1] = {
    2 * LOG2_E,      2 * LOG2_E / 3,  2 * LOG2_E / 5,  2 * LOG2_E / 7,  2 * LOG2_E / 9,
    2 * LOG2_E / 11, 2 * LOG2_E / 13, 2 * LOG2_E / 15, 2 * LOG2_E / 17, 2 * LOG2_E / 19};
static const double vf64_p[vf64_P + 1] = {
    5.83619874583324548e-10, 1.60924111059972424e-10, 3.05656908369213717e-11,
    4.21185035174624201e-12, 4.37068842164768889e-13, 3.56701046307709282e-14,
    2.29187765672095863e-15, 1.15510786359283373e-16, 4.64873583183890662e-18,
    1.57020457107101849e-19, 4.45290507014811428e-21, 6.51427387235685704e-23,
    4.32401951827429682e-24, 1.99918871044046667e-26};
static const double vf64_q[vf64_Q + 1] = {
    1.0,                     0.0942689526400008689,   0.029004756251938524,
    0.00224064266725585363,  0.00027675720122335873,  1.70472397860518221e-5,
    9.88030413294400615e-7,  4.93836941503558451e-8,  1.34006660554181073e-9,
    6.60041288370929598e-11, 5.36879055248874629e-13, 4.57127180890410732e-14,
    7.418957455170912e-16,   7.52782203660302961e-19};

#endif

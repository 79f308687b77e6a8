// Layers that edgemix adds to hls4ml. Every one computes on the integers behind ap_fixed values,
// without overflow, and rounds once, half to even: what the quantized program does.
#ifndef NNET_EDGEMIX_H_
#define NNET_EDGEMIX_H_

#include "ap_fixed.h"
#include "ap_int.h"

namespace nnet {

// The integer behind a fixed-point value, in units of its least significant bit.
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> ap_int<W> edgemix_raw(const ap_fixed<W, I, Q, O, N> &x) {
    #pragma HLS INLINE
    ap_int<W> raw;
    raw.range(W - 1, 0) = x.range(W - 1, 0);
    return raw;
}

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> ap_int<W + 1> edgemix_raw(const ap_ufixed<W, I, Q, O, N> &x) {
    #pragma HLS INLINE
    ap_int<W + 1> raw = 0;
    raw.range(W - 1, 0) = x.range(W - 1, 0);
    return raw;
}

// round_half_even(numerator / denominator), limited to [lowest, highest]; denominator > 0.
template <int W> ap_int<W> edgemix_divide(ap_int<W> numerator, ap_int<W> denominator, int lowest, int highest) {
    #pragma HLS INLINE
    ap_int<W> quotient = numerator / denominator;
    ap_int<W> rest = numerator - quotient * denominator;
    if (rest < 0) {
        quotient -= 1;
        rest += denominator;
    }
    ap_int<W + 1> twice = rest;
    twice <<= 1;
    if (twice > denominator || (twice == denominator && quotient[0])) {
        quotient += 1;
    }
    if (quotient < lowest) {
        quotient = lowest;
    }
    if (quotient > highest) {
        quotient = highest;
    }
    return quotient;
}

// A value from its integer.
template <class res_T, int W> res_T edgemix_value(ap_int<W> raw) {
    #pragma HLS INLINE
    res_T value = 0;
    value.range(res_T::width - 1, 0) = raw.range(res_T::width - 1, 0);
    return value;
}

// Wires: out[i] = in[source(i)].
template <class data_T, class res_T, typename CONFIG_T> void edgemix_wires(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        #pragma HLS UNROLL
        out[i] = in[CONFIG_T::source(i)];
    }
}

// A scalar function: the table holds the result's integer for every input's bits.
template <class data_T, class res_T, typename CONFIG_T> void edgemix_table(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        #pragma HLS UNROLL
        ap_uint<data_T::width> bits = in[i].range(data_T::width - 1, 0);
        ap_int<CONFIG_T::width> raw = CONFIG_T::value(bits.to_uint());
        out[i] = edgemix_value<res_T, CONFIG_T::width>(raw);
    }
}

// Means or sums, of values or their squares, over sets of inputs: set i has count(i) members, source(i, 0), source(i, 1), ...
template <class data_T, class res_T, typename CONFIG_T> void edgemix_mean(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        #pragma HLS UNROLL
        ap_int<CONFIG_T::width> sum = 0;
        for (unsigned j = 0; j < CONFIG_T::n_window; j++) {
            #pragma HLS UNROLL
            if (j < CONFIG_T::count(i)) {
                ap_int<CONFIG_T::width> raw = edgemix_raw(in[CONFIG_T::source(i, j)]);
                if (CONFIG_T::squares) {
                    raw = raw * raw;
                }
                sum += raw;
            }
        }
        ap_int<CONFIG_T::width> count = CONFIG_T::divides ? CONFIG_T::count(i) : 1;
        sum <<= CONFIG_T::shift_up;
        count <<= CONFIG_T::shift_down;
        out[i] = edgemix_value<res_T, CONFIG_T::width>(
            edgemix_divide<CONFIG_T::width>(sum, count, CONFIG_T::lowest, CONFIG_T::highest));
    }
}

// Maxima over sets of inputs, laid out like the means.
template <class data_T, class res_T, typename CONFIG_T> void edgemix_max(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        #pragma HLS UNROLL
        data_T best = in[CONFIG_T::source(i, 0)];
        for (unsigned j = 1; j < CONFIG_T::n_window; j++) {
            #pragma HLS UNROLL
            if (j < CONFIG_T::count(i) && in[CONFIG_T::source(i, j)] > best) {
                best = in[CONFIG_T::source(i, j)];
            }
        }
        out[i] = best;
    }
}

// Add, or multiply by, a constant for every element.
template <class data_T, class res_T, typename CONFIG_T>
void edgemix_constant(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        #pragma HLS UNROLL
        typename CONFIG_T::constant_t constant = 0;
        ap_int<CONFIG_T::width> raw = CONFIG_T::value(i);
        constant.range(CONFIG_T::width - 1, 0) = raw.range(CONFIG_T::width - 1, 0);
        if (CONFIG_T::multiplies) {
            out[i] = in[i] * constant;
        } else if (CONFIG_T::negated) {
            out[i] = constant - in[i];
        } else {
            out[i] = in[i] + constant;
        }
    }
}

// Two values side by side: out[i] = (a, b)[source(i)].
template <class a_T, class b_T, class res_T, typename CONFIG_T>
void edgemix_join(a_T a[CONFIG_T::n_in], b_T b[CONFIG_T::n_out], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
        #pragma HLS UNROLL
        const int from = CONFIG_T::source(i);
        if (from < CONFIG_T::n_first) {
            out[i] = a[from];
        } else {
            out[i] = b[from - CONFIG_T::n_first];
        }
    }
}

// Batched product of two activations: [b, i, k] times [b, k, j].
template <class a_T, class b_T, class res_T, typename CONFIG_T>
void edgemix_matmul(a_T a[CONFIG_T::n_batch * CONFIG_T::n_row * CONFIG_T::n_inner],
                    b_T b[CONFIG_T::n_batch * CONFIG_T::n_inner * CONFIG_T::n_column],
                    res_T out[CONFIG_T::n_batch * CONFIG_T::n_row * CONFIG_T::n_column]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    for (unsigned n = 0; n < CONFIG_T::n_batch; n++) {
        #pragma HLS UNROLL
        for (unsigned i = 0; i < CONFIG_T::n_row; i++) {
            #pragma HLS UNROLL
            for (unsigned j = 0; j < CONFIG_T::n_column; j++) {
                #pragma HLS UNROLL
                typename CONFIG_T::accum_t sum = 0;
                for (unsigned k = 0; k < CONFIG_T::n_inner; k++) {
                    #pragma HLS UNROLL
                    sum += a[(n * CONFIG_T::n_row + i) * CONFIG_T::n_inner + k] *
                           b[(n * CONFIG_T::n_inner + k) * CONFIG_T::n_column + j];
                }
                out[(n * CONFIG_T::n_row + i) * CONFIG_T::n_column + j] = sum;
            }
        }
    }
}

} // namespace nnet

#endif

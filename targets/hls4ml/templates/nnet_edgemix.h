// Layers that edgemix adds to hls4ml. Every one computes on the integers behind ap_fixed values,
// without overflow, and rounds once, half to even: what the quantized program does.
//
// A layer works on parts. With io_parallel there is one part: the whole tensor. With io_stream a
// part is one pixel where every output pixel is made of the input pixel at its place, else it is
// again the whole tensor, which the layer collects first.
#ifndef NNET_EDGEMIX_H_
#define NNET_EDGEMIX_H_

#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_stream.h"

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
struct edgemix_wires {
    template <class data_T, class res_T, typename CONFIG_T>
    static void run(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS UNROLL
            out[i] = in[CONFIG_T::source(i)];
        }
    }
};

// A scalar function: the table holds the result's integer for every input's bits.
struct edgemix_table {
    template <class data_T, class res_T, typename CONFIG_T>
    static void run(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS UNROLL
            ap_uint<data_T::width> bits = in[i].range(data_T::width - 1, 0);
            ap_int<CONFIG_T::width> raw = CONFIG_T::value(bits.to_uint());
            out[i] = edgemix_value<res_T, CONFIG_T::width>(raw);
        }
    }
};

// Sums, of values or their squares, over sets of inputs: set i has count(i) members, source(i, 0), source(i, 1), ...
// The sum is divided by one of n_divisors constants: number chosen(i) for set i.
struct edgemix_mean {
    template <class data_T, class res_T, typename CONFIG_T>
    static void run(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
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
            sum <<= CONFIG_T::shift_up;
            ap_int<CONFIG_T::width> quotient = 0;
            for (unsigned k = 0; k < CONFIG_T::n_divisors; k++) {
                #pragma HLS UNROLL
                if (CONFIG_T::chosen(part * CONFIG_T::n_out + i) == k) {
                    ap_int<CONFIG_T::width> divisor = CONFIG_T::divisor(k);
                    divisor <<= CONFIG_T::shift_down;
                    quotient = edgemix_divide<CONFIG_T::width>(sum, divisor, CONFIG_T::lowest, CONFIG_T::highest);
                }
            }
            out[i] = edgemix_value<res_T, CONFIG_T::width>(quotient);
        }
    }
};

// Maxima over sets of inputs, laid out like the means.
struct edgemix_max {
    template <class data_T, class res_T, typename CONFIG_T>
    static void run(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
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
};

// Add, or multiply by, a constant for every element.
struct edgemix_constant {
    template <class data_T, class res_T, typename CONFIG_T>
    static void run(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS UNROLL
            typename CONFIG_T::constant_t constant = 0;
            ap_int<CONFIG_T::width> raw = CONFIG_T::value(part * CONFIG_T::n_out + i);
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
};

// A spike: 1 where a value reaches its bound (negated: where it does not).
struct edgemix_spike {
    template <class data_T, class res_T, typename CONFIG_T>
    static void run(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS UNROLL
            ap_int<CONFIG_T::width> raw = edgemix_raw(in[i]);
            raw <<= CONFIG_T::shift;
            out[i] = (raw >= CONFIG_T::bound(i)) != (CONFIG_T::negated != 0);
        }
    }
};

// The same of a sum or difference of two values.
struct edgemix_spike2 {
    template <class a_T, class b_T, class res_T, typename CONFIG_T>
    static void run(a_T a[CONFIG_T::n_in], b_T b[CONFIG_T::n_in2], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS UNROLL
            ap_int<CONFIG_T::width> first = edgemix_raw(a[i]);
            ap_int<CONFIG_T::width> second = edgemix_raw(b[i]);
            first <<= CONFIG_T::shift;
            second <<= CONFIG_T::shift2;
            ap_int<CONFIG_T::width> sum = first + CONFIG_T::sign * second;
            out[i] = (sum >= CONFIG_T::bound(i)) != (CONFIG_T::negated != 0);
        }
    }
};

// Wires among constants: out[i] = in[source(i)], or the constant value(i) where source(i) is −1.
struct edgemix_filled {
    template <class data_T, class res_T, typename CONFIG_T>
    static void run(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS UNROLL
            const int from = CONFIG_T::source(i);
            if (from < 0) {
                ap_int<CONFIG_T::width> raw = CONFIG_T::value(i);
                out[i] = edgemix_value<res_T, CONFIG_T::width>(raw);
            } else {
                out[i] = in[from];
            }
        }
    }
};

// Two values side by side: out[i] = (a, b)[source(i)].
struct edgemix_join {
    template <class a_T, class b_T, class res_T, typename CONFIG_T>
    static void run(a_T a[CONFIG_T::n_in], b_T b[CONFIG_T::n_in2], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
        for (unsigned i = 0; i < CONFIG_T::n_out; i++) {
            #pragma HLS UNROLL
            const int from = CONFIG_T::source(i);
            if (from < CONFIG_T::n_in) {
                out[i] = a[from];
            } else {
                out[i] = b[from - CONFIG_T::n_in];
            }
        }
    }
};

// Batched product of two activations: [b, i, k] times [b, k, j].
struct edgemix_matmul {
    template <class a_T, class b_T, class res_T, typename CONFIG_T>
    static void run(a_T a[CONFIG_T::n_in], b_T b[CONFIG_T::n_in2], res_T out[CONFIG_T::n_out], unsigned part) {
        #pragma HLS INLINE
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
};

// A part of N values from a stream of pixels.
template <class data_T, unsigned N> void edgemix_read(hls::stream<data_T> &in, typename data_T::value_type flat[N]) {
    #pragma HLS INLINE
    for (unsigned i = 0; i < N / data_T::size; i++) {
        #pragma HLS PIPELINE
        data_T pixel = in.read();
        for (unsigned j = 0; j < data_T::size; j++) {
            #pragma HLS UNROLL
            flat[i * data_T::size + j] = pixel[j];
        }
    }
}

template <class res_T, unsigned N> void edgemix_write(typename res_T::value_type flat[N], hls::stream<res_T> &out) {
    #pragma HLS INLINE
    for (unsigned i = 0; i < N / res_T::size; i++) {
        #pragma HLS PIPELINE
        res_T pixel;
        for (unsigned j = 0; j < res_T::size; j++) {
            #pragma HLS UNROLL
            pixel[j] = flat[i * res_T::size + j];
        }
        out.write(pixel);
    }
}

template <class OP, class data_T, class res_T, typename CONFIG_T>
void edgemix_layer(data_T in[CONFIG_T::n_in], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    OP::template run<data_T, res_T, CONFIG_T>(in, out, 0);
}

template <class OP, class data_T, class res_T, typename CONFIG_T>
void edgemix_layer(hls::stream<data_T> &in, hls::stream<res_T> &out) {
    typedef typename data_T::value_type x_T;
    typedef typename res_T::value_type y_T;
    for (unsigned part = 0; part < CONFIG_T::n_parts; part++) {
        if (CONFIG_T::n_parts > 1) {
            #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        }
        x_T x[CONFIG_T::n_in];
        y_T y[CONFIG_T::n_out];
        #pragma HLS ARRAY_PARTITION variable=x complete
        #pragma HLS ARRAY_PARTITION variable=y complete
        edgemix_read<data_T, CONFIG_T::n_in>(in, x);
        OP::template run<x_T, y_T, CONFIG_T>(x, y, part);
        edgemix_write<res_T, CONFIG_T::n_out>(y, out);
    }
}

template <class OP, class a_T, class b_T, class res_T, typename CONFIG_T>
void edgemix_layer2(a_T a[CONFIG_T::n_in], b_T b[CONFIG_T::n_in2], res_T out[CONFIG_T::n_out]) {
    #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
    OP::template run<a_T, b_T, res_T, CONFIG_T>(a, b, out, 0);
}

template <class OP, class a_T, class b_T, class res_T, typename CONFIG_T>
void edgemix_layer2(hls::stream<a_T> &a, hls::stream<b_T> &b, hls::stream<res_T> &out) {
    typedef typename a_T::value_type x_T;
    typedef typename b_T::value_type z_T;
    typedef typename res_T::value_type y_T;
    for (unsigned part = 0; part < CONFIG_T::n_parts; part++) {
        if (CONFIG_T::n_parts > 1) {
            #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
        }
        x_T x[CONFIG_T::n_in];
        z_T z[CONFIG_T::n_in2];
        y_T y[CONFIG_T::n_out];
        #pragma HLS ARRAY_PARTITION variable=x complete
        #pragma HLS ARRAY_PARTITION variable=z complete
        #pragma HLS ARRAY_PARTITION variable=y complete
        edgemix_read<a_T, CONFIG_T::n_in>(a, x);
        edgemix_read<b_T, CONFIG_T::n_in2>(b, z);
        OP::template run<x_T, z_T, y_T, CONFIG_T>(x, z, y, part);
        edgemix_write<res_T, CONFIG_T::n_out>(y, out);
    }
}

} // namespace nnet

#endif

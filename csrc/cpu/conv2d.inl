// Convolution: which algorithm computes which shape, and which is chosen.
#include "conv2d_direct.inl"

inline bool is_depthwise(const Conv2dShape& s) { return s.groups > 1 && s.groups == s.C && s.groups == s.K; }

bool conv2d_can(int, const Conv2dShape&, Algorithm algorithm) { return algorithm == DIRECT; }

Algorithm conv2d_chosen(int, const Conv2dShape&) { return DIRECT; }

i64 conv2d_packed_size(const Conv2dShape&, Algorithm) { return 0; }

void conv2d_pack(const Conv2dShape&, Algorithm, const float*, float*) {}

void conv2d_forward(const Conv2dShape& s, Algorithm, const float* x, const float* w, const float*, float* y,
                    const Epilogue& e) {
  direct_forward(s, x, w, y, e);
}

void conv2d_backward_input(const Conv2dShape& s, Algorithm, const float* dy, const float* w, float* dx) {
  direct_backward_input(s, dy, w, dx);
}

void conv2d_backward_weight(const Conv2dShape& s, Algorithm, const float* x, const float* dy, float* dw) {
  direct_backward_weight(s, x, dy, dw);
}

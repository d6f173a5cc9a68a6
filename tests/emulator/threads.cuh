// Kernels on barriers, warps, atomics and memory. BUG 0 is right; every other value plants one bug, whose line carries
// its name in a comment for the tests to find.

struct Values {
  float v[64];
};

// y[i] = x[63 - i] through shared memory
template <int BUG>
__global__ void __launch_bounds__(64) reversed(const float* x, float* y) {
  DYN_SMEM(Values, s);
  const int i = threadIdx.x;
  s->v[i] = x[i];
  if (BUG == 1) {
    y[i] = s->v[63 - i];  // missing-barrier
    return;
  }
  if (BUG == 2) {
    if (i < 32) __syncthreads();  // divergent-exited
  } else if (BUG == 3) {
    if (i < 32)
      __syncthreads();  // divergent-first
    else
      __syncthreads();  // divergent-second
  } else if (BUG == 4) {
    __syncwarp();
    y[i] = s->v[63 - i];  // syncwarp-across-warps
    return;
  } else {
    __syncthreads();
  }
  const int from = 63 - i;
  if (BUG == 5) y[i] = reinterpret_cast<const float*>(s)[from + 1];         // shared-past-end
  if (BUG == 6) s->v[from + 1] = 0;                                         // shared-index
  if (BUG == 7) y[i + 1] = s->v[from];                                      // global-write
  if (BUG == 8) y[i] = x[i - 1];                                            // global-read
  if (BUG == 9) y[i] = reinterpret_cast<const float2*>(s->v + 1)[i / 4].x;  // misaligned
  if (BUG == 0) y[i] = s->v[from];
}

// Sums rows of 32 from a tile of which half is never written where BUG is 1
template <int BUG>
__global__ void __launch_bounds__(32) row_sum(const float* x, float* y) {
  DYN_SMEM(Values, s);
  const int lane = threadIdx.x;
  s->v[lane] = x[lane];
  if (BUG == 0) s->v[lane + 32] = x[lane + 32];
  __syncthreads();
  float sum = s->v[lane] + s->v[lane + 32];  // uninitialised
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane == 0) y[0] = sum;
}

// Rotates within a warp, in place: the second barrier separates the reads from the writes of the next round
template <int BUG>
__global__ void __launch_bounds__(64) rotated(const float* x, float* y, int rounds) {
  DYN_SMEM(Values, s);
  const int i = threadIdx.x, neighbour = i / 32 * 32 + (i + 1) % 32;
  s->v[i] = x[i];
  __syncwarp();
  for (int round = 0; round < rounds; round++) {
    const float v = s->v[neighbour];
    if (BUG != 1) __syncwarp();
    s->v[i] = v;  // missing-syncwarp
    __syncwarp();
  }
  y[i] = s->v[i];
}

// y[0..9]: what the warp collectives give lane by lane, 32 values each
__global__ void __launch_bounds__(32) warp_results(const int* x, int* y) {
  const int lane = threadIdx.x;
  const unsigned all = 0xffffffffu;
  int* out = y + lane;
  out[0 * 32] = __shfl_sync(all, x[lane], 5);
  out[1 * 32] = __shfl_sync(all, x[lane], lane + 3, 8);
  out[2 * 32] = __shfl_up_sync(all, x[lane], 2);
  out[3 * 32] = __shfl_up_sync(all, x[lane], 3, 8);
  out[4 * 32] = __shfl_down_sync(all, x[lane], 2);
  out[5 * 32] = __shfl_down_sync(all, x[lane], 3, 16);
  out[6 * 32] = __shfl_xor_sync(all, x[lane], 5);
  out[7 * 32] = static_cast<int>(__ballot_sync(all, x[lane] % 3 == 0));
  out[8 * 32] = __any_sync(all, x[lane] == x[31]) * 2 + __all_sync(all, x[lane] >= 0);
  out[9 * 32] = static_cast<int>(__match_any_sync(all, x[lane] % 4));
  // halves of the warp on their own, then together again
  int part = x[lane];
  if (lane < 16) {
    for (int step = 8; step > 0; step /= 2) part += __shfl_xor_sync(0x0000ffffu, part, step);
  } else {
    part = __shfl_sync(0xffff0000u, part, 20);
  }
  out[10 * 32] = __shfl_xor_sync(all, part, 16);
  out[11 * 32] = static_cast<int>(__shfl_down_sync(all, static_cast<double>(x[lane]), 1) * 2);
}

template <int BUG>
__global__ void __launch_bounds__(64) warp_masks(int* y) {
  if (BUG == 5 && threadIdx.x == 7) __trap();  // trap
  if (BUG == 6) y[threadIdx.x] = ptx::elect_one();
  if (BUG == 1) y[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0);  // mask-without-caller
  if (BUG == 2) {
    if (threadIdx.x % 2)
      __syncwarp();  // divergent-warp-first
    else
      y[0] = __shfl_sync(0xffffffffu, 1, 0);  // divergent-warp-second
  }
  if (BUG == 3 && threadIdx.x != 3) __syncwarp();  // the rest has returned: allowed
  if (BUG == 4) {
    if (threadIdx.x % 32 == 3)
      __syncthreads();  // deadlock-block
    else
      __syncwarp();  // deadlock-warp
  }
}

// y[0] = threads whose x is positive, y[1] = all are, y[2] = any is
__global__ void votes(const int* x, int* y) {
  const int i = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int count = __syncthreads_count(x[i] > 0);
  const int all = __syncthreads_and(x[i] > 0);
  const int any = __syncthreads_or(x[i] > 0);
  if (i == 0) {
    y[0] = count;
    y[1] = all;
    y[2] = any;
  }
}

struct Pipe {
  float tile[2][32];
};

// Warp 0 produces, warp 1 consumes, through named barriers: id 1 + stage "full", id 3 + stage "empty"
template <int BUG>
__global__ void __launch_bounds__(64) piped(const float* x, float* y, int steps) {
  DYN_SMEM(Pipe, s);
  const int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    for (int i = 0; i < steps; i++) {
      if (i >= 2 && BUG != 1) ptx::named_barrier_sync(3 + i % 2, 64);
      s->tile[i % 2][lane] = x[i * 32 + lane];                   // missing-empty-barrier
      ptx::named_barrier_arrive(1 + i % 2, BUG == 2 ? 32 : 64);  // named-count
    }
  } else {
    for (int i = 0; i < steps; i++) {
      ptx::named_barrier_sync(1 + i % 2, 64);
      y[i * 32 + lane] = s->tile[i % 2][31 - lane];
      if (i + 2 < steps) ptx::named_barrier_arrive(3 + i % 2, 64);
    }
  }
}

// Every thread of every block counts; with plain additions where BUG is 1
template <int BUG>
__global__ void histogram(const int* x, int* bins, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    if (BUG == 1)
      bins[x[i]] += 1;  // missing-atomic
    else
      atomicAdd(&bins[x[i]], 1);
  }
}

// The last block to finish adds up what the others left: fence, then ticket
template <int BUG>
__global__ void last_block_sum(const float* x, float* partial, unsigned* ticket, float* y) {
  DYN_SMEM(Values, s);
  float sum = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    if (BUG != 1) __threadfence();
    s->v[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (s->v[0] != 0 && threadIdx.x == 0) {
    float total = 0;
    for (unsigned b = 0; b < gridDim.x; b++) total += partial[b];  // missing-threadfence
    y[0] = total;
  }
}

// Blocks take turns by a flag: each adds to y after the one before it
template <int BUG>
__global__ void chained(uint32_t* flags, float* y) {
  if (threadIdx.x == 0) {
    while (blockIdx.x > 0 && ptx::load_acquire(&flags[blockIdx.x - 1]) == 0) {  // polled-in-vain
    }
    y[0] = y[0] * 2 + 1;
    if (BUG != 1 || blockIdx.x != 1) ptx::store_release(&flags[blockIdx.x], 1u);
  }
}

// A lock that threads of one block and of others spin on
__global__ void locked(int* lock, int* count) {
  while (atomicCAS(lock, 0, 1) != 0) {
  }
  __threadfence();
  *count += 1;
  __threadfence();
  atomicExch(lock, 0);
}

__global__ void atomics(int* i, unsigned* u, unsigned long long* l, float* f) {
  const int t = static_cast<int>(threadIdx.x + blockIdx.x * blockDim.x);
  atomicAdd(&i[0], t);
  atomicSub(&i[1], t);
  atomicMax(&i[2], t);
  atomicMin(&i[3], -t);
  atomicOr(&i[4], 1 << t % 31);
  atomicAnd(&i[5], ~(1 << t % 31));
  atomicXor(&i[6], t);
  atomicAdd(&u[0], static_cast<unsigned>(t));
  atomicMax(&u[1], static_cast<unsigned>(t));
  atomicMin(&u[2], static_cast<unsigned>(t));
  atomicInc(&u[3], 9u);
  atomicExch(&u[4], 77u);
  atomicCAS(&u[5], 0u, 5u);
  atomicAdd(&l[0], 1ull << 33);
  atomicMax(&l[1], static_cast<unsigned long long>(t) << 32);
  atomicAdd(&f[0], 0.5f);
}

// What a thread is told about itself: y (threads, 4)
__global__ void places(int* y) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int* out = y + 4 * (block * static_cast<int>(blockDim.x * blockDim.y * blockDim.z) + thread);
  out[0] = block;
  out[1] = threadIdx.x;
  out[2] = threadIdx.y;
  out[3] = threadIdx.z;
}

template <int BUG>
__global__ void arithmetic(const int* x, long long* y) {
  if (BUG == 0) y[0] = static_cast<long long>(x[0]) * x[1];
  if (BUG == 1) y[0] = x[0] * x[1];  // overflow
  if (BUG == 2) y[0] = x[0] / x[2];  // division
  float local[4] = {1, 2, 3, 4};
  if (BUG == 3) y[0] = static_cast<long long>(local[x[3]]);  // local-index
}

struct Argument {
  int a;
  float b[3];
};

// y = {every argument}: bytes of a struct by value, integers of two sizes, a float
__global__ void arguments(Argument s, long long big, int small, float real, double* y) {
  y[0] = s.a;
  for (int i = 0; i < 3; i++) y[1 + i] = s.b[i];
  y[4] = static_cast<double>(big);
  y[5] = small;
  y[6] = real;
}

// Conversions: h and b are bits, x float; y the floats that come back, z results of intrinsics
__global__ void converted(const float* x, uint16_t* h, uint16_t* b, float* from_h, float* from_b, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  h[i] = __half_as_ushort(__float2half_rn(x[i]));
  b[i] = __bfloat16_as_ushort(__float2bfloat16_rn(x[i]));
  from_h[i] = to_float(from_float<__half>(x[i]));
  from_b[i] = to_float(from_float<__nv_bfloat16>(x[i]));
}

__global__ void half_bits_to_float(const uint16_t* bits, float* h, float* b, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  h[i] = __half2float(__ushort_as_half(bits[i]));
  b[i] = __bfloat162float(__ushort_as_bfloat16(bits[i]));
}

// y (n, 6): sum, difference, product, quotient, fused, larger of halves, as bits
__global__ void half_arithmetic(const uint16_t* p, const uint16_t* q, const uint16_t* r, uint16_t* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const __half a = __ushort_as_half(p[i]), b = __ushort_as_half(q[i]), c = __ushort_as_half(r[i]);
  const __half results[6] = {a + b, a - b, a * b, a / b, __hfma(a, b, c), __hmax(a, b)};
  for (int j = 0; j < 6; j++) y[i * 6 + j] = __half_as_ushort(results[j]);
}

__global__ void intrinsics(const unsigned* x, unsigned* y, const float* f, float* g) {
  y[0] = __umulhi(x[0], x[1]);
  y[1] = static_cast<unsigned>(__popc(x[0]));
  y[2] = static_cast<unsigned>(__ffs(static_cast<int>(x[0])));
  y[3] = static_cast<unsigned>(__clz(static_cast<int>(x[0])));
  y[4] = __brev(x[0]);
  y[5] = __byte_perm(x[0], x[1], 0x7531);
  y[6] = static_cast<unsigned>(__float2int_rn(f[0]));
  y[7] = static_cast<unsigned>(__float2int_rz(f[0]));
  y[8] = __float_as_uint(f[0]);
  y[9] = static_cast<unsigned>(__clz(0) + __ffs(0));
  y[10] = __funnelshift_l(x[0], x[1], 8);
  g[0] = __expf(f[0]);
  g[1] = rsqrtf(f[0]);
  g[2] = __fmaf_rn(f[0], f[0], f[1]);
  g[3] = __saturatef(f[0]);
  g[4] = max(f[0], f[1]);
  g[5] = __ldg(f + 1);
  g[6] = __uint_as_float(x[2]);
  const float4 v = make_float4(f[0], f[1], 2, 3);
  reinterpret_cast<float4*>(g + 8)[0] = v;
}

// Kernels on copies that finish later and on the matrix instructions. BUG 0 is right; every other value plants one bug.

struct Copied {
  alignas(16) float v[2][128];
};

// y = x through two tiles of 128, four floats a thread; `n` a multiple of 4
template <int BUG>
__global__ void __launch_bounds__(32) copied(const float* x, float* y, int n) {
  DYN_SMEM(Copied, s);
  const int lane = threadIdx.x, tiles = (n + 127) / 128;
  const auto load = [&](int tile) {
    const int i = tile * 128 + lane * 4;
    ptx::cp_async<16>(&s->v[tile % 2][lane * 4] + (BUG == 3 ? 1 : 0), i < n ? x + i : x, i < n);  // copy-misaligned
    ptx::cp_async_commit();
  };
  load(0);
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      load(tile + 1);
      if (BUG != 1) ptx::cp_async_wait<1>();
    } else if (BUG != 1) {
      ptx::cp_async_wait<0>();
    }
    if (BUG != 2) __syncthreads();
    for (int j = lane; j < 128; j += 32)
      if (tile * 128 + j < n) y[tile * 128 + j] = s->v[tile % 2][127 - j] + s->v[tile % 2][j];  // copy-read
    __syncthreads();
  }
}

// Copies of 4 and 8 bytes: y = x where i is even, 0 elsewhere, of 32 floats and 32 pairs
__global__ void __launch_bounds__(32) copied_small(const float* x, float* y) {
  DYN_SMEM(Copied, s);
  const int i = threadIdx.x;
  ptx::cp_async<4>(&s->v[0][i], x + i, i % 2 == 0);
  ptx::cp_async<8>(&s->v[1][2 * i], x + 32 + 2 * i, i % 2 == 0);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  y[i] = s->v[0][i];
  y[32 + 2 * i] = s->v[1][2 * i];
  y[33 + 2 * i] = s->v[1][2 * i + 1];
}

// y (14, 32): what each lane gets of four matrices of 8 x 8, through every form of ldmatrix
__global__ void __launch_bounds__(32) matrices(const uint4* x, uint32_t* y) {
  DYN_SMEM(uint4, rows);
  const int l = threadIdx.x;
  rows[l] = x[l];
  __syncwarp();
  uint32_t plain1[1], plain2[2], plain4[4], turned1[1], turned2[2], turned4[4];
  ptx::ldmatrix_x1(plain1, rows + l);
  ptx::ldmatrix_x2(plain2, rows + l);
  ptx::ldmatrix_x4(plain4, rows + l);
  ptx::ldmatrix_x1_trans(turned1, rows + l);
  ptx::ldmatrix_x2_trans(turned2, rows + l);
  ptx::ldmatrix_x4_trans(turned4, rows + l);
  y[l] = plain1[0];
  for (int i = 0; i < 2; i++) y[(1 + i) * 32 + l] = plain2[i];
  for (int i = 0; i < 4; i++) y[(3 + i) * 32 + l] = plain4[i];
  y[7 * 32 + l] = turned1[0];
  for (int i = 0; i < 2; i++) y[(8 + i) * 32 + l] = turned2[i];
  for (int i = 0; i < 4; i++) y[(10 + i) * 32 + l] = turned4[i];
}

// The way back: registers x (4, 32) to y, rows of 8 elements, 7 matrices through every form of stmatrix, then 7 turned
__global__ void __launch_bounds__(32) matrices_back(const uint32_t* x, uint4* y) {
  DYN_SMEM(uint4, rows);
  const int l = threadIdx.x;
  const uint32_t one[1] = {x[l]}, two[2] = {x[l], x[32 + l]}, four[4] = {x[l], x[32 + l], x[64 + l], x[96 + l]};
  ptx::stmatrix_x1(rows + l, one);
  ptx::stmatrix_x2(rows + 8 + l, two);
  ptx::stmatrix_x4(rows + 24 + l, four);
  ptx::stmatrix_x1_trans(rows + 56 + l, one);
  ptx::stmatrix_x2_trans(rows + 64 + l, two);
  ptx::stmatrix_x4_trans(rows + 80 + l, four);
  __syncwarp();
  for (int i = l; i < 112; i += 32) y[i] = rows[i];
}

struct Outputs {
  alignas(16) uint32_t v[2][32][4];  // 32 rows of 8 elements for each of two warps
};

// Each warp stores its registers, and the other reads them: y (2, 32, 4)
template <int BUG>
__global__ void __launch_bounds__(64) stored_fragments(uint32_t* y) {
  DYN_SMEM(Outputs, s);
  const int l = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t r[4] = {1u * l, 100u + l, 200u + l, 300u + l};
  if (BUG == 3 && threadIdx.x == 40) return;
  uint32_t* row = s->v[warp][l] + (BUG == 2 ? 1 : 0);
  ptx::stmatrix_x4(row, r);  // stmatrix
  if (BUG != 1) __syncthreads();
  for (int i = 0; i < 4; i++) y[(warp * 32 + l) * 4 + i] = s->v[1 - warp][l][i];  // stmatrix-read
}

// d (16, 8) = a (16, 16) @ b (16, 8), 16-bit elements: a row by row, b column by column in shared memory
struct Fragments {
  alignas(16) uint16_t a[16][16];
  uint16_t b[8][16];       // column by column
  uint16_t b_rows[16][8];  // row by row, for ldmatrix_trans
};

template <class T, int TRANSPOSED>
__global__ void __launch_bounds__(32) multiplied(const uint16_t* a, const uint16_t* b, float* d) {
  DYN_SMEM(Fragments, s);
  const int l = threadIdx.x;
  for (int i = l; i < 256; i += 32) s->a[i / 16][i % 16] = a[i];
  for (int i = l; i < 128; i += 32) {
    s->b[i % 8][i / 8] = b[i];
    s->b_rows[i / 8][i % 8] = b[i];
  }
  __syncwarp();
  uint32_t fa[4], fb[2];
  float fd[4] = {1, 1, 1, 1};
  ptx::ldmatrix_x4(fa, &s->a[l % 16][l / 16 * 8]);
  if (TRANSPOSED)
    ptx::ldmatrix_x2_trans(fb, &s->b_rows[l % 16][0]);
  else
    ptx::ldmatrix_x2(fb, &s->b[l % 8][l / 8 % 2 * 8]);
  ptx::mma_m16n8k16<T>(fd, fa, fb);
  for (int i = 0; i < 4; i++) d[(l / 4 + i / 2 * 8) * 8 + l % 4 * 2 + i % 2] = fd[i];
}

// The same for k = 8: 16-bit elements, and floats rounded to tf32
template <int BF16>
__global__ void __launch_bounds__(32)
    multiplied_k8(const uint16_t* a, const uint16_t* b, const float* x, const float* w, float* d, float* e) {
  const int l = threadIdx.x, g = l / 4, t = l % 4;
  const auto two = [](const uint16_t* p, int step) {
    return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[step]) << 16;
  };
  float fd[4] = {}, fe[4] = {};
  const uint32_t fa[2] = {two(a + g * 8 + t * 2, 1), two(a + (g + 8) * 8 + t * 2, 1)},
                 fb[1] = {two(b + t * 2 * 8 + g, 8)};
  if (BF16)
    ptx::mma_m16n8k8_bf16(fd, fa, fb);
  else
    ptx::mma_m16n8k8_f16(fd, fa, fb);
  uint32_t fx[4], fw[2];
  for (int i = 0; i < 4; i++) fx[i] = ptx::to_tf32(x[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
  for (int i = 0; i < 2; i++) fw[i] = ptx::to_tf32(w[(t + i * 4) * 8 + g]);
  ptx::mma_m16n8k8_tf32(fe, fx, fw);
  for (int i = 0; i < 4; i++) {
    d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = fd[i];
    e[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = fe[i];
  }
}

struct Box {
  alignas(1024) unsigned char tile[16 * 1024];
  uint64_t full;
};

// Brings the box at (c0, c1, ...) of the tensor to `bytes` bytes of y, as it lies in shared memory
template <int RANK>
__global__ void __launch_bounds__(32) boxed(const __grid_constant__ CUtensorMap map, unsigned char* y, int bytes,
                                            int c0, int c1, int c2, int c3, int c4) {
  DYN_SMEM(Box, s);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&s->full, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_tx(&s->full, bytes);
    if (RANK == 2) ptx::tma_load_2d(s->tile, &map, &s->full, c0, c1);
    if (RANK == 3) ptx::tma_load_3d(s->tile, &map, &s->full, c0, c1, c2);
    if (RANK == 4) ptx::tma_load_4d(s->tile, &map, &s->full, c0, c1, c2, c3);
    if (RANK == 5) ptx::tma_load_5d(s->tile, &map, &s->full, c0, c1, c2, c3, c4);
  }
  __syncthreads();
  ptx::mbarrier_wait(&s->full, 0);
  for (int i = threadIdx.x; i < bytes; i += 32) y[i] = s->tile[i];
}

// Brings a column of pixels through an im2col map to `bytes` bytes of y, as it lies in shared memory; BUG 1 waits for
// one pixel less
template <int BUG>
__global__ void __launch_bounds__(32) columned(const __grid_constant__ CUtensorMap map, unsigned char* y, int bytes,
                                               int c, int w, int h, int n, int off_w, int off_h) {
  DYN_SMEM(Box, s);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&s->full, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_tx(&s->full, bytes - (BUG == 1 ? 16 : 0));
    ptx::tma_load_im2col_4d(s->tile, &map, &s->full, c, w, h, n, off_w, off_h);  // column
  }
  __syncthreads();
  ptx::mbarrier_wait(&s->full, 0);  // column-wait
  for (int i = threadIdx.x; i < bytes; i += 32) y[i] = s->tile[i];
}

// Writes x (rows, columns), laid out for the map's swizzle by the host, through the tile to the tensor at (c0, c1)
template <class T>
__global__ void __launch_bounds__(32)
    stored_swizzled(const __grid_constant__ CUtensorMap map, const T* x, int elements, int c0, int c1) {
  DYN_SMEM(Box, s);
  T* tile = reinterpret_cast<T*>(s->tile);
  for (int i = threadIdx.x; i < elements; i += 32) tile[i] = x[i];
  ptx::fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::tma_store_2d(&map, s->tile, c0, c1);
    ptx::tma_store_commit();
    ptx::tma_store_wait<0>();
  }
}

// Fills a tile (8, 32 floats) with row * 100 + column and stores it at (c0, c1)
template <int BUG>
__global__ void __launch_bounds__(32) stored(const __grid_constant__ CUtensorMap map, int c0, int c1) {
  DYN_SMEM(Box, s);
  float* tile = reinterpret_cast<float*>(s->tile);
  for (int row = 0; row < 8; row++) tile[row * 32 + threadIdx.x] = row * 100.f + threadIdx.x;
  if (BUG != 1) ptx::fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::tma_store_2d(&map, s->tile, c0, c1);  // store
    ptx::tma_store_commit();
    if (BUG == 2) tile[0] = 7;  // overwritten
    if (BUG == 4) ptx::tma_store_wait_read<0>();
    if (BUG != 3) ptx::tma_store_wait<0>();
  }
}

template <int BUG>
struct Ring {
  static constexpr int STAGES = 2;
  alignas(1024) __half a[STAGES][64][64];
  alignas(1024) __half b[STAGES][64][64];
  uint64_t full[STAGES], empty[STAGES];
};

// d (64, 64) = a (64, k) @ b (64, k)^T: warp 4 brings tiles by TMA, warps 0 to 3 multiply them, two stages
template <int BUG>
__global__ void __launch_bounds__(160)
    ring(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float* y, int steps) {
  using Shared = Ring<0>;
  DYN_SMEM(Shared, s);
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  if (t == 0) {
    for (int i = 0; i < 2; i++) {
      ptx::mbarrier_init(&s->full[i], 1);
      ptx::mbarrier_init(&s->empty[i], BUG == 4 ? 64 : 128);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (warp == 4) {
    if (lane != 0) return;
    for (int i = 0; i < steps; i++) {
      const int stage = i % 2;
      if (i >= 2 && BUG != 1) ptx::mbarrier_wait(&s->empty[stage], (i / 2 - 1) % 2);
      ptx::mbarrier_arrive_expect_tx(&s->full[stage], 2 * 64 * 64 * 2 + (BUG == 2 ? 16 : 0));  // full-arrive
      ptx::tma_load_2d(s->a[stage], &a, &s->full[stage], i * 64, 0);                           // load-a
      ptx::tma_load_2d(s->b[stage], &b, &s->full[stage], i * 64, 0);
    }
    return;
  }
  float d[32];
  for (int i = 0; i < 32; i++) d[i] = 0;
  for (int i = 0; i < steps; i++) {
    const int stage = i % 2;
    const int parity = i / 2 % 2;
    ptx::mbarrier_wait(&s->full[stage], BUG == 3 ? 1 - parity : parity);  // full-wait
    if (BUG != 5) ptx::wgmma_fence();
    if (BUG == 11) d[0] += 1;
    uint64_t da = ptx::matrix_descriptor(s->a[stage], 16, 1024, ptx::Swizzle::bytes128);
    const uint64_t db = ptx::matrix_descriptor(s->b[stage], 16, 1024, ptx::Swizzle::bytes128);
    if (BUG == 6 && t == 77) da += 2;
    if (BUG == 7) da += 0x2000;
    for (int k = 0; k < 4; k++) ptx::wgmma<__half>(d, da + k * 2, db + k * 2, true);  // wgmma
    ptx::wgmma_commit();
    if (BUG == 8) y[0] = d[0];  // accumulator-in-flight
    if (BUG != 9) ptx::wgmma_wait<0>();
    if (BUG == 10) d[0] += 1;
    ptx::mbarrier_arrive(&s->empty[stage]);  // empty-arrive
  }
  for (int i = 0; i < 32; i++) y[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
}

struct Operands {
  alignas(1024) unsigned char a[64 * 128];
  alignas(1024) unsigned char b[256 * 128];
};

// d (64, N) = the product of tiles that the host laid out in shared memory's order; BUG 1 forgets the proxy fence
template <class T, int N, int BUG, int MN_MAJOR>
__global__ void __launch_bounds__(128) warpgroup_product(const unsigned char* a, const unsigned char* b, float* y,
                                                         int leading, int stride, int swizzle, int accumulate) {
  DYN_SMEM(Operands, s);
  const int t = threadIdx.x;
  for (int i = t; i < 64 * 128; i += 128) s->a[i] = a[i];  // operand-a
  for (int i = t; i < 256 * 128; i += 128) s->b[i] = b[i];
  if (BUG != 1) ptx::fence_proxy_async();
  __syncthreads();
  const uint64_t da = ptx::matrix_descriptor(s->a, leading, stride, static_cast<ptx::Swizzle>(swizzle));
  const uint64_t db = ptx::matrix_descriptor(s->b, leading, stride, static_cast<ptx::Swizzle>(swizzle));
  float d[N / 2];
  for (int i = 0; i < N / 2; i++) d[i] = 1;
  ptx::wgmma_fence();
  ptx::wgmma<T, MN_MAJOR, MN_MAJOR>(d, da, db, accumulate != 0);  // product
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < N / 2; i++)
    y[(t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8) * N + i / 4 * 8 + t % 4 * 2 + i % 2] = d[i];
}

template <int N>
struct Gradient {
  static constexpr int PIXELS = 64;                                        // of a tile, along k
  alignas(1024) unsigned char dy[2][PIXELS][128], x[N / 64][PIXELS][128];  // each a box of 64 channels
  uint64_t full;
};

// dw (128, N) = dy (pixels, 128)^T @ x (pixels, N): both operands MN-major, in boxes of 64 channels with 128-byte
// swizzle. Each of two warpgroups multiplies 64 filters.
template <class T, int N>
__global__ void __launch_bounds__(256) weight_gradient(const __grid_constant__ CUtensorMap dy,
                                                       const __grid_constant__ CUtensorMap x, float* dw, int pixels) {
  using Shared = Gradient<N>;
  DYN_SMEM(Shared, s);
  constexpr int BOX = Shared::PIXELS * 128;  // bytes
  const int t = threadIdx.x % 128, group = threadIdx.x / 128;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&s->full, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  float d[N / 2];
  for (int i = 0; i < N / 2; i++) d[i] = 0;
  for (int first = 0, phase = 0; first < pixels; first += Shared::PIXELS, phase ^= 1) {
    if (threadIdx.x == 0) {
      ptx::mbarrier_arrive_expect_tx(&s->full, (2 + N / 64) * BOX);
      for (int i = 0; i < 2; i++) ptx::tma_load_2d(s->dy[i], &dy, &s->full, i * 64, first);
      for (int i = 0; i < N / 64; i++) ptx::tma_load_2d(s->x[i], &x, &s->full, i * 64, first);
    }
    ptx::mbarrier_wait(&s->full, phase);
    ptx::wgmma_fence();
    const uint64_t a = ptx::matrix_descriptor(s->dy[group], BOX, 1024, ptx::Swizzle::bytes128);
    const uint64_t b = ptx::matrix_descriptor(s->x, BOX, 1024, ptx::Swizzle::bytes128);
    for (int k = 0; k < Shared::PIXELS; k += 16) {
      const uint64_t step = k * 128 >> 4;
      ptx::wgmma<T, 1, 1>(d, a + step, b + step, true);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    __syncthreads();
  }
  dw += group * 64 * N;
  for (int i = 0; i < N / 2; i++)
    dw[(t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8) * N + i / 4 * 8 + t % 4 * 2 + i % 2] = d[i];
}

struct OneBarrier {
  alignas(8) uint64_t barrier;
  float v;
};

template <int BUG>
__global__ void __launch_bounds__(32) arrivals(float* y) {
  DYN_SMEM(OneBarrier, s);
  if (threadIdx.x == 0) {
    if (BUG != 1) ptx::mbarrier_init(&s->barrier, BUG == 2 ? 33 : 32);
    s->v = 3;
  }
  __syncthreads();
  if (BUG == 4 && threadIdx.x != 3) return;
  ptx::mbarrier_arrive(&s->barrier);   // arrive
  ptx::mbarrier_wait(&s->barrier, 0);  // wait
  if (BUG == 3) {
    if (threadIdx.x == 0)
      ptx::mbarrier_arrive_expect_tx(&s->barrier, 64);
    else
      ptx::mbarrier_arrive(&s->barrier);
    __syncwarp();
    ptx::mbarrier_arrive(&s->barrier);  // one-too-many
  }
  while (!ptx::mbarrier_try_wait(&s->barrier, 0)) {
  }
  y[threadIdx.x] = s->v;
}

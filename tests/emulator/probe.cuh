// Calls every instruction of ptx.cuh and wgmma.cuh once, so that a compiler sees it; never run.

#ifdef CNN_EMULATOR
#define ARCH 900
#define WGMMA 1
#elif defined(__CUDA_ARCH__)
#define ARCH __CUDA_ARCH__
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WGMMA 1
#endif
#else
#define ARCH 0
#endif

struct ProbeShared {
  uint64_t barrier;
  uint32_t word;
  alignas(16) __half tile[64][64];
};

__global__ void __launch_bounds__(128) probe_warp(unsigned* y) {
  DYN_SMEM(ProbeShared, s);
  uint32_t a[4] = {}, b[2] = {}, one[1] = {};
  float d[4] = {};
  ptx::ldmatrix_x1(one, s->tile[threadIdx.x % 64]);
  ptx::ldmatrix_x2(b, s->tile[threadIdx.x % 64]);
  ptx::ldmatrix_x4(a, s->tile[threadIdx.x % 64]);
  ptx::ldmatrix_x1_trans(one, s->tile[threadIdx.x % 64]);
  ptx::ldmatrix_x2_trans(b, s->tile[threadIdx.x % 64]);
  ptx::ldmatrix_x4_trans(a, s->tile[threadIdx.x % 64]);
  ptx::mma_m16n8k8_f16(d, {a[0], a[1]}, one);
  ptx::named_barrier_sync(1, 128);
  if (threadIdx.x < 64)
    ptx::named_barrier_arrive(2, 128);
  else
    ptx::named_barrier_sync(2, 128);
  if (ptx::load_acquire(y) == 1) ptx::store_release(y + 1, 2);
  y[0] = ptx::shared_address(s) + __float_as_uint(d[0]) + a[3] + b[1] + ptx::block_x();
}

__global__ void __launch_bounds__(128) probe_sm80(const char* x, float* y) {
#if ARCH >= 800
  DYN_SMEM(ProbeShared, s);
  const uint32_t a[4] = {ptx::to_tf32(y[0]), 1, 2, 3}, b[2] = {4, 5};
  float d[4] = {};
  ptx::cp_async<4>(s->tile, x, true);
  ptx::cp_async<8>(s->tile, x, true);
  ptx::cp_async<16>(s->tile, x, threadIdx.x < 5);
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  ptx::cp_async_wait<0>();
  ptx::mma_m16n8k16_f16(d, a, b);
  ptx::mma_m16n8k16_bf16(d, a, b);
  ptx::mma_m16n8k16<__half>(d, a, b);
  ptx::mma_m16n8k16<__nv_bfloat16>(d, a, b);
  ptx::mma_m16n8k8_tf32(d, a, b);
  ptx::mma_m16n8k8_bf16(d, {a[0], a[1]}, {b[0]});
  y[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
#endif
}

__global__ void __launch_bounds__(128) probe_sm90(const __grid_constant__ CUtensorMap map, float* y) {
#if ARCH >= 900
  DYN_SMEM(ProbeShared, s);
  ptx::cluster_arrive();
  ptx::cluster_wait();
  ptx::cluster_sync();
  const uint32_t r[4] = {__float_as_uint(y[0]), 1, 2, *ptx::peer_shared(&s->word, ptx::cluster_rank())};
  ptx::stmatrix_x1(s->tile[threadIdx.x % 64], {r[0]});
  ptx::stmatrix_x2(s->tile[threadIdx.x % 64], {r[0], r[1]});
  ptx::stmatrix_x4(s->tile[threadIdx.x % 64], r);
  ptx::stmatrix_x1_trans(s->tile[threadIdx.x % 64], {r[0]});
  ptx::stmatrix_x2_trans(s->tile[threadIdx.x % 64], {r[0], r[1]});
  ptx::stmatrix_x4_trans(s->tile[threadIdx.x % 64], r);
  if (ptx::elect_one()) {
    ptx::prefetch_tensor_map(&map);
    ptx::mbarrier_init(&s->barrier, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive(&s->barrier);
    ptx::mbarrier_arrive_expect_tx(&s->barrier, 128);
    ptx::tma_load_2d(s->tile, &map, &s->barrier, 0, 1);
    ptx::tma_load_3d(s->tile, &map, &s->barrier, 0, 1, 2);
    ptx::tma_load_4d(s->tile, &map, &s->barrier, 0, 1, 2, 3);
    ptx::tma_load_5d(s->tile, &map, &s->barrier, 0, 1, 2, 3, 4);
    ptx::tma_load_im2col_4d(s->tile, &map, &s->barrier, 0, 1, 2, 3, 4, 5);
    ptx::tma_load_2d_multicast(s->tile, &map, &s->barrier, 0, 1, 3);
    ptx::tma_load_3d_multicast(s->tile, &map, &s->barrier, 0, 1, 2, 3);
    ptx::tma_load_4d_multicast(s->tile, &map, &s->barrier, 0, 1, 2, 3, 3);
    ptx::tma_load_im2col_4d_multicast(s->tile, &map, &s->barrier, 0, 1, 2, 3, 4, 5, 3);
    ptx::mbarrier_arrive_remote(&s->barrier, ptx::cluster_blocks() - 1);
    ptx::mbarrier_signal_remote(&s->barrier, ptx::cluster_blocks() - 1);
    ptx::mbarrier_wait_cluster(&s->barrier, 1);
    ptx::mbarrier_wait_cluster(&s->barrier, 0);
    ptx::mbarrier_wait(&s->barrier, 0);
    if (ptx::mbarrier_try_wait(&s->barrier, 1)) y[0] = 1;
    ptx::fence_proxy_async();
    ptx::tma_store_2d(&map, s->tile, 0, 1);
    ptx::tma_store_3d(&map, s->tile, 0, 1, 2);
    ptx::tma_store_4d(&map, s->tile, 0, 1, 2, 3);
    ptx::tma_store_5d(&map, s->tile, 0, 1, 2, 3, 4);
    ptx::tma_store_commit();
    ptx::tma_store_wait_read<1>();
    ptx::tma_store_wait<0>();
  }
#endif
}

template <class T, int N>
__device__ void probe_wgmma_size(uint64_t a, uint64_t b, float* y) {
#ifdef WGMMA
  float d[N / 2] = {};
  ptx::wgmma_fence();
  ptx::wgmma<T>(d, a, b, false);
  ptx::wgmma<T>(d, a, b, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < N / 2; i++) y[i * 128 + threadIdx.x] = d[i];
#endif
}

template <class T>
__device__ void probe_wgmma_type(uint64_t a, uint64_t b, float* y) {
  probe_wgmma_size<T, 16>(a, b, y);
  probe_wgmma_size<T, 32>(a, b, y);
  probe_wgmma_size<T, 64>(a, b, y);
  probe_wgmma_size<T, 96>(a, b, y);
  probe_wgmma_size<T, 128>(a, b, y);
  probe_wgmma_size<T, 192>(a, b, y);
  probe_wgmma_size<T, 256>(a, b, y);
}

__global__ void __launch_bounds__(128) probe_sm90a(float* y) {
#ifdef WGMMA
  DYN_SMEM(ProbeShared, s);
  const uint64_t d = ptx::matrix_descriptor(s->tile, 16, 1024, ptx::Swizzle::bytes128);
  ptx::increase_registers<240>();
  probe_wgmma_type<__half>(d, d, y);
  probe_wgmma_type<__nv_bfloat16>(d, d, y);
  probe_wgmma_type<ptx::tf32>(d, d, y);
  float e[32] = {};
  ptx::wgmma_fence();
  ptx::wgmma<__half, 1, 1>(e, d, d, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  y[0] = e[0];
  ptx::decrease_registers<24>();
#endif
}

template <class T>
__global__ void probe_conversions(const float* x, T* y) {
  y[0] = from_float<T>(to_float(from_float<T>(x[0])) + __uint_as_float(__float_as_uint(x[1])));
}

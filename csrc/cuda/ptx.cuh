// Every PTX instruction that kernels use, each in one place with its twin for the emulator. Kernels call these and
// write no assembly of their own. Names are PTX's; what an instruction means is in the PTX manual, section
// "Instructions".
//
//   sm_75   ldmatrix, mma m16n8k8 (f16), named barriers
//   sm_80   cp.async, mma m16n8k16, mma m16n8k8 (bf16, tf32); on sm_75 cp.async copies at once, f16's m16n8k16 is two
//   sm_90   stmatrix, mbarrier, bulk tensor copies (TMA), proxy fences, clusters
//   sm_90a  wgmma, setmaxnreg
//
// On an architecture that lacks it an instruction becomes a trap: a kernel gates its body and never gets there.
#pragma once
#include "platform.cuh"

// A twin for the emulator, and the assembly. Where the emulator notes the line of the call, the GPU passes nothing.
#ifdef CNN_EMULATOR

namespace ptx {
using Site = emulator::Site;
}
#define PTX_SITE ::ptx::Site site = emulator::here()
#define PTX_SM75(twin, assembly) twin
#define PTX_SM80(twin, assembly) twin
#define PTX_SM90(twin, assembly) twin
#define PTX_SM90A(twin, assembly) twin

#else

namespace ptx {
struct Site {};
}  // namespace ptx
#define PTX_SITE ::ptx::Site site = ::ptx::Site()
#define PTX_SM75(twin, assembly) assembly
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define PTX_SM80(twin, assembly) assembly
#else
#define PTX_SM80(twin, assembly) __trap()
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define PTX_SM90(twin, assembly) assembly
#else
#define PTX_SM90(twin, assembly) __trap()
#endif
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PTX_SM90A(twin, assembly) assembly
#else
#define PTX_SM90A(twin, assembly) __trap()
#endif

#endif

#define PTX_INLINE __device__ __forceinline__

namespace ptx {

// ---- addresses, flags and barriers

// The address that instructions on shared memory take: an offset in the block's shared window
PTX_INLINE uint32_t shared_address(const void* p, PTX_SITE) {
  uint32_t address = 0;
  PTX_SM75(address = emulator::shared_offset(p, site), address = static_cast<uint32_t>(__cvta_generic_to_shared(p)));
  return address;
}

// blockIdx.x, read anew: what was computed from it before need not wait in registers
PTX_INLINE unsigned block_x() {
  unsigned x = 0;
  PTX_SM75(x = blockIdx.x, asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x)));
  return x;
}

// A flag in global memory through which blocks talk: what was written before the store is seen after the load.
PTX_INLINE uint32_t load_acquire(const uint32_t* flag, PTX_SITE) {
  uint32_t value = 0;
  PTX_SM75(value = emulator::flag_load(flag, site),
           asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory"));
  return value;
}
PTX_INLINE void store_release(uint32_t* flag, uint32_t value, PTX_SITE) {
  PTX_SM75(emulator::flag_store(flag, value, site),
           asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory"));
}

// Barrier `id` (1 to 15; 0 is __syncthreads) of `threads` threads, a multiple of 32; _arrive does not wait.
PTX_INLINE void named_barrier_sync(int id, int threads, PTX_SITE) {
  PTX_SM75(emulator::named_barrier(id, threads, true, site),
           asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"));
}
PTX_INLINE void named_barrier_arrive(int id, int threads, PTX_SITE) {
  PTX_SM75(emulator::named_barrier(id, threads, false, site),
           asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"));
}

// True in one lane of the warp, all 32 of which must call it
PTX_INLINE bool elect_one(PTX_SITE) {
  uint32_t elected = 0;
  PTX_SM90(elected = emulator::warp_elect(site),
           asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}" : "=r"(elected)));
  return elected != 0;
}

// Gives registers of this warpgroup back, or takes more (24 to 256, multiples of 8), where the kernel has launch bounds
template <int REGISTERS>
PTX_INLINE void decrease_registers() {
  PTX_SM90A(, asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS)));
}
template <int REGISTERS>
PTX_INLINE void increase_registers() {
  PTX_SM90A(, asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS)));
}

// ---- matrix fragments in registers

// 8x8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes,
// aligned), and receives of each matrix elements (l/4, l%4*2) and (l/4, l%4*2+1); `_trans` swaps rows and columns.
PTX_INLINE void ldmatrix_x1(uint32_t (&r)[1], const void* row, PTX_SITE) {
  PTX_SM75(emulator::load_matrices(r, 1, false, row, site),
           asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(
               shared_address(row)) : "memory"));
}
PTX_INLINE void ldmatrix_x2(uint32_t (&r)[2], const void* row, PTX_SITE) {
  PTX_SM75(emulator::load_matrices(r, 2, false, row, site),
           asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]),
                        "=r"(r[1]) : "r"(shared_address(row)) : "memory"));
}
PTX_INLINE void ldmatrix_x4(uint32_t (&r)[4], const void* row, PTX_SITE) {
  PTX_SM75(emulator::load_matrices(r, 4, false, row, site),
           asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]),
                        "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory"));
}
PTX_INLINE void ldmatrix_x1_trans(uint32_t (&r)[1], const void* row, PTX_SITE) {
  PTX_SM75(emulator::load_matrices(r, 1, true, row, site),
           asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(
               shared_address(row)) : "memory"));
}
PTX_INLINE void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, PTX_SITE) {
  PTX_SM75(emulator::load_matrices(r, 2, true, row, site),
           asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]),
                        "=r"(r[1]) : "r"(shared_address(row)) : "memory"));
}
PTX_INLINE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, PTX_SITE) {
  PTX_SM75(emulator::load_matrices(r, 4, true, row, site),
           asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]),
                        "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory"));
}

// The other way: each lane gives its registers, as ldmatrix brings them, and the address of a row as for ldmatrix
PTX_INLINE void stmatrix_x1(void* row, const uint32_t (&r)[1], PTX_SITE) {
  PTX_SM90(emulator::store_matrices(row, r, 1, false, site),
           asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(shared_address(row)),
                        "r"(r[0]) : "memory"));
}
PTX_INLINE void stmatrix_x1_trans(void* row, const uint32_t (&r)[1], PTX_SITE) {
  PTX_SM90(emulator::store_matrices(row, r, 1, true, site),
           asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(shared_address(row)),
                        "r"(r[0]) : "memory"));
}
PTX_INLINE void stmatrix_x2(void* row, const uint32_t (&r)[2], PTX_SITE) {
  PTX_SM90(emulator::store_matrices(row, r, 2, false, site),
           asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(shared_address(row)),
                        "r"(r[0]), "r"(r[1]) : "memory"));
}
PTX_INLINE void stmatrix_x2_trans(void* row, const uint32_t (&r)[2], PTX_SITE) {
  PTX_SM90(emulator::store_matrices(row, r, 2, true, site),
           asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(shared_address(row)),
                        "r"(r[0]), "r"(r[1]) : "memory"));
}
PTX_INLINE void stmatrix_x4(void* row, const uint32_t (&r)[4], PTX_SITE) {
  PTX_SM90(emulator::store_matrices(row, r, 4, false, site),
           asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
                        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory"));
}
PTX_INLINE void stmatrix_x4_trans(void* row, const uint32_t (&r)[4], PTX_SITE) {
  PTX_SM90(
      emulator::store_matrices(row, r, 4, true, site),
      asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
                   "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory"));
}

// d (16, 8) += a (16, k) @ b (k, 8) by one warp, float32 sums. Lane l holds d[0], d[1] = d(l/4, l%4*2 + {0, 1}) and
// d[2], d[3] = d(l/4 + 8, the same); a row by row and b column by column, as ldmatrix brings them.
PTX_INLINE void mma_m16n8k8_f16(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], PTX_SITE) {
  PTX_SM75(
      emulator::multiply_fragments(emulator::Element::f16, 8, d, a, b, site),
      asm volatile(
          "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};" : "+f"(d[0]),
          "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b[0])));
}
PTX_INLINE void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], PTX_SITE) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800  // two products of half the k
  const uint32_t first_a[2] = {a[0], a[1]}, second_a[2] = {a[2], a[3]}, first_b[1] = {b[0]}, second_b[1] = {b[1]};
  mma_m16n8k8_f16(d, first_a, first_b);
  mma_m16n8k8_f16(d, second_a, second_b);
#else
  PTX_SM80(emulator::multiply_fragments(emulator::Element::f16, 16, d, a, b, site),
           asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                        "{%0,%1,%2,%3};" : "+f"(d[0]),
                        "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]),
                        "r"(b[1])));
#endif
}
PTX_INLINE void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], PTX_SITE) {
  PTX_SM80(emulator::multiply_fragments(emulator::Element::bf16, 16, d, a, b, site),
           asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                        "{%0,%1,%2,%3};" : "+f"(d[0]),
                        "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]),
                        "r"(b[1])));
}
PTX_INLINE void mma_m16n8k8_bf16(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], PTX_SITE) {
  PTX_SM80(emulator::multiply_fragments(emulator::Element::bf16, 8, d, a, b, site),
           asm volatile(
               "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};" : "+f"(
                   d[0]),
               "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b[0])));
}
// tf32: a[i] = a(l/4 + i%2*8, l%4 + i/2*4), b[i] = b(l%4 + i*4, l/4), each rounded by to_tf32
PTX_INLINE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], PTX_SITE) {
  PTX_SM80(emulator::multiply_fragments(emulator::Element::tf32, 8, d, a, b, site),
           asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                        "{%0,%1,%2,%3};" : "+f"(d[0]),
                        "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]),
                        "r"(b[1])));
}

// The bits of v rounded to tf32 (10 bits of significand), ties away from zero
PTX_INLINE uint32_t to_tf32(float v) {
  uint32_t bits = 0;
  PTX_SM80(bits = emulator::float_to_tf32(v), asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v)));
  return bits;
}

// The 16-bit products by element type
template <class T>
PTX_INLINE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], PTX_SITE);
template <>
PTX_INLINE void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  mma_m16n8k16_f16(d, a, b, site);
}
template <>
PTX_INLINE void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  mma_m16n8k16_bf16(d, a, b, site);
}

template <class T>
PTX_INLINE void mma_m16n8k8(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], PTX_SITE);
template <>
PTX_INLINE void mma_m16n8k8<__half>(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], Site site) {
  mma_m16n8k8_f16(d, a, b, site);
}
template <>
PTX_INLINE void mma_m16n8k8<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], Site site) {
  mma_m16n8k8_bf16(d, a, b, site);
}

// ---- cp.async: global to shared memory past the registers; before sm_80 through them, at once

// BYTES (4, 8 or 16; both addresses multiples of it) arrive after commit and wait; zeros where `copy` is false, and
// `global` is not read then. 16 bytes pass the first-level cache by.
template <int BYTES>
PTX_INLINE void cp_async(void* shared, const void* global, bool copy, PTX_SITE) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  struct alignas(BYTES) Bytes {
    uint32_t word[BYTES / 4];
  };
  *static_cast<Bytes*>(shared) = copy ? *static_cast<const Bytes*>(global) : Bytes{};
#else
  if constexpr (BYTES == 16) {
    PTX_SM80(emulator::copy_async(shared, global, BYTES, copy, site),
             asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                          "r"(copy ? BYTES : 0) : "memory"));
  } else {
    PTX_SM80(emulator::copy_async(shared, global, BYTES, copy, site),
             asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                          "n"(BYTES), "r"(copy ? BYTES : 0) : "memory"));
  }
#endif
}
PTX_INLINE void cp_async_commit(PTX_SITE) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  PTX_SM80(emulator::copy_async_commit(site), asm volatile("cp.async.commit_group;" :: : "memory"));
#endif
}
// until at most GROUPS of this thread's groups are in flight; a barrier must follow before others read what it copied
template <int GROUPS>
PTX_INLINE void cp_async_wait(PTX_SITE) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  PTX_SM80(emulator::copy_async_wait(GROUPS, site), asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory"));
#endif
}

// ---- mbarriers: a phase ends when `arrivals` threads have arrived and the expected bytes have come

PTX_INLINE void mbarrier_init(uint64_t* barrier, int arrivals, PTX_SITE) {
  PTX_SM90(
      emulator::mbarrier_init(barrier, arrivals, site),
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory"));
}
// after the initialisation, before the first bulk copy; a block barrier must follow
PTX_INLINE void fence_mbarrier_init(PTX_SITE) {
  PTX_SM90(emulator::mbarrier_init_fence(site), asm volatile("fence.mbarrier_init.release.cluster;" :: : "memory"));
}
PTX_INLINE void mbarrier_arrive(uint64_t* barrier, PTX_SITE) {
  PTX_SM90(emulator::mbarrier_arrive(barrier, 0, site),
           asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory"));
}
PTX_INLINE void mbarrier_arrive_expect_tx(uint64_t* barrier, int bytes, PTX_SITE) {
  PTX_SM90(emulator::mbarrier_arrive(barrier, bytes, site),
           asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                        "r"(bytes) : "memory"));
}
// Whether the phase of this parity (0 first, then 1, 0, ...) has ended
PTX_INLINE bool mbarrier_try_wait(uint64_t* barrier, int parity, PTX_SITE) {
  uint32_t done = 0;
  PTX_SM90(done = emulator::mbarrier_test(barrier, parity, site),
           asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                        "selp.b32 %0, 1, 0, p;\n}" : "=r"(done) : "r"(shared_address(barrier)),
                        "r"(parity) : "memory"));
  return done != 0;
}
PTX_INLINE void mbarrier_wait(uint64_t* barrier, int parity, PTX_SITE) {
  PTX_SM90(emulator::mbarrier_wait(barrier, parity, site), while (!mbarrier_try_wait(barrier, parity)){});
}

// ---- clusters: blocks that run together and reach each other's shared memory

// This block's place in its cluster, x first, and how many blocks the cluster has; 0 and 1 in a launch without clusters
PTX_INLINE int cluster_rank() {
  int rank = 0;
  PTX_SM90(rank = emulator::cluster_rank(), asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)));
  return rank;
}
PTX_INLINE int cluster_blocks() {
  int blocks = 1;
  PTX_SM90(blocks = emulator::cluster_blocks(), asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks)));
  return blocks;
}
// The barrier of all threads of the cluster that have not returned: what came before anybody's arrival is seen after
// the wait. Between the two a thread may do other things. It must lie after initialising mbarriers that other blocks
// use, and before the end of a block whose shared memory others still reach.
PTX_INLINE void cluster_arrive(PTX_SITE) {
  PTX_SM90(emulator::cluster_arrive(site), asm volatile("barrier.cluster.arrive.release;" :: : "memory"));
}
PTX_INLINE void cluster_wait(PTX_SITE) {
  PTX_SM90(emulator::cluster_wait(site), asm volatile("barrier.cluster.wait.acquire;" :: : "memory"));
}
PTX_INLINE void cluster_sync(PTX_SITE) {
  ptx::cluster_arrive(site);
  ptx::cluster_wait(site);
}
// Where block `rank` of the cluster has what lies at p in this block's shared memory: for ordinary reads and writes
template <class T>
PTX_INLINE T* peer_shared(T* p, int rank, PTX_SITE) {
  T* there = nullptr;
  PTX_SM90(there = static_cast<T*>(emulator::peer_shared(p, rank, site)),
           asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(rank)));
  return there;
}
// Arrives at block `rank`'s mbarrier at the place of `barrier` in this one. Who waits for it takes
// mbarrier_wait_cluster.
PTX_INLINE void mbarrier_arrive_remote(uint64_t* barrier, int rank, PTX_SITE) {
  PTX_SM90(
      emulator::mbarrier_arrive_remote(barrier, rank, site),
      asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                   "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(barrier)),
                   "r"(rank) : "memory"));
}
// The same without ordering what this thread's ordinary accesses did for the other block's threads: enough where wgmma
// has read what a copy overwrites next. Who waits takes mbarrier_wait.
PTX_INLINE void mbarrier_signal_remote(uint64_t* barrier, int rank, PTX_SITE) {
  PTX_SM90(emulator::mbarrier_arrive_remote(barrier, rank, site),
           asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(barrier)),
                        "r"(rank) : "memory"));
}
PTX_INLINE void mbarrier_wait_cluster(uint64_t* barrier, int parity, PTX_SITE) {
  PTX_SM90(
      emulator::mbarrier_wait(barrier, parity, site),
      asm volatile("{\n.reg .pred p;\nagain:\n"
                   "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}" ::"r"(
                       shared_address(barrier)),
                   "r"(parity) : "memory"));
}

// ---- bulk tensor copies (TMA): one thread moves a box between a tensor in global memory and a tile in shared memory

// Between writes of the threads to shared memory and reads of it by TMA or wgmma: by the writers, then a barrier
PTX_INLINE void fence_proxy_async(PTX_SITE) {
  PTX_SM90(emulator::async_proxy_fence(site), asm volatile("fence.proxy.async.shared::cta;" :: : "memory"));
}
PTX_INLINE void prefetch_tensor_map(const CUtensorMap* map) {
  PTX_SM90((void)map, asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"));
}

// The box at the coordinates, innermost first, in elements; parts outside the tensor are zeros. The whole box's bytes
// are counted on the barrier.
PTX_INLINE void tma_load_2d(void* tile, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, PTX_SITE) {
  PTX_SM90(
      emulator::tensor_load(tile, *map, {c0, c1}, barrier, site),
      asm volatile(
          "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
              "r"(shared_address(tile)),
          "l"(map), "r"(c0), "r"(c1), "r"(shared_address(barrier)) : "memory"));
}
PTX_INLINE void tma_load_3d(void* tile, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, int c2, PTX_SITE) {
  PTX_SM90(emulator::tensor_load(tile, *map, {c0, c1, c2}, barrier, site),
           asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
                        "%3, %4}], [%5];" ::"r"(shared_address(tile)),
                        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(shared_address(barrier)) : "memory"));
}
PTX_INLINE void tma_load_4d(void* tile, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, int c2, int c3,
                            PTX_SITE) {
  PTX_SM90(emulator::tensor_load(tile, *map, {c0, c1, c2, c3}, barrier, site),
           asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
                        "%3, %4, %5}], [%6];" ::"r"(shared_address(tile)),
                        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(shared_address(barrier)) : "memory"));
}
PTX_INLINE void tma_load_5d(void* tile, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, int c2, int c3,
                            int c4, PTX_SITE) {
  PTX_SM90(
      emulator::tensor_load(tile, *map, {c0, c1, c2, c3, c4}, barrier, site),
      asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
                   "%3, %4, %5, %6}], [%7];" ::"r"(shared_address(tile)),
                   "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "r"(shared_address(barrier)) : "memory"));
}
// Implicit GEMM's rows: a column of pixels, each with `channelsPerPixel` channels from c on, through an im2col map of a
// tensor (N, H, W, C). Base pixels walk along w, then h, then n, by the map's element strides, inside the bounding box
// [lower, size - 1 + upper] of its corners; (w, h, n) is the first of them. What is read lies (off_h, off_w), each 0 to
// 255, behind its base: a filter's tap times the dilation. Pixels outside the tensor are zeros.
PTX_INLINE void tma_load_im2col_4d(void* tile, const CUtensorMap* map, uint64_t* barrier, int c, int w, int h, int n,
                                   int off_w, int off_h, PTX_SITE) {
  PTX_SM90(emulator::tensor_load_im2col(tile, *map, {c, w, h, n}, {off_w, off_h}, barrier, site),
           asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, "
                        "{%2, %3, %4, %5}], [%6], {%7, %8};" ::"r"(shared_address(tile)),
                        "l"(map), "r"(c), "r"(w), "r"(h), "r"(n), "r"(shared_address(barrier)),
                        "h"(static_cast<uint16_t>(off_w)), "h"(static_cast<uint16_t>(off_h)) : "memory"));
}
// The same box to every block of the cluster whose bit of `blocks` is set, this one or not: at the same place of its
// shared memory, and counted on its own barrier at that place. Each of them expects the whole box's bytes.
PTX_INLINE void tma_load_2d_multicast(void* tile, const CUtensorMap* map, uint64_t* barrier, int c0, int c1,
                                      uint16_t blocks, PTX_SITE) {
  PTX_SM90(emulator::tensor_load(tile, *map, {c0, c1}, barrier, blocks, site),
           asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::"
                        "cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(tile)),
                        "l"(map), "r"(c0), "r"(c1), "r"(shared_address(barrier)), "h"(blocks) : "memory"));
}
PTX_INLINE void tma_load_3d_multicast(void* tile, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, int c2,
                                      uint16_t blocks, PTX_SITE) {
  PTX_SM90(emulator::tensor_load(tile, *map, {c0, c1, c2}, barrier, blocks, site),
           asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::"
                        "cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(shared_address(tile)),
                        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(shared_address(barrier)), "h"(blocks) : "memory"));
}
PTX_INLINE void tma_load_4d_multicast(void* tile, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, int c2,
                                      int c3, uint16_t blocks, PTX_SITE) {
  PTX_SM90(
      emulator::tensor_load(tile, *map, {c0, c1, c2, c3}, barrier, blocks, site),
      asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                   "[%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(shared_address(tile)),
                   "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(shared_address(barrier)), "h"(blocks) : "memory"));
}
PTX_INLINE void tma_load_im2col_4d_multicast(void* tile, const CUtensorMap* map, uint64_t* barrier, int c, int w, int h,
                                             int n, int off_w, int off_h, uint16_t blocks, PTX_SITE) {
  PTX_SM90(emulator::tensor_load_im2col(tile, *map, {c, w, h, n}, {off_w, off_h}, barrier, blocks, site),
           asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes.multicast::"
                        "cluster [%0], [%1, "
                        "{%2, %3, %4, %5}], [%6], {%7, %8}, %9;" ::"r"(shared_address(tile)),
                        "l"(map), "r"(c), "r"(w), "r"(h), "r"(n), "r"(shared_address(barrier)),
                        "h"(static_cast<uint16_t>(off_w)), "h"(static_cast<uint16_t>(off_h)), "h"(blocks) : "memory"));
}
// The other way; parts of the box outside the tensor are not written. Threads that filled the tile call
// fence_proxy_async first. The tile may change after wait_read, the block may end after wait_read, others see the
// tensor after wait.
PTX_INLINE void tma_store_2d(const CUtensorMap* map, const void* tile, int c0, int c1, PTX_SITE) {
  PTX_SM90(emulator::tensor_store(*map, {c0, c1}, tile, site),
           asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
                        "r"(c0), "r"(c1), "r"(shared_address(tile)) : "memory"));
}
PTX_INLINE void tma_store_3d(const CUtensorMap* map, const void* tile, int c0, int c1, int c2, PTX_SITE) {
  PTX_SM90(emulator::tensor_store(*map, {c0, c1, c2}, tile, site),
           asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(map),
                        "r"(c0), "r"(c1), "r"(c2), "r"(shared_address(tile)) : "memory"));
}
PTX_INLINE void tma_store_4d(const CUtensorMap* map, const void* tile, int c0, int c1, int c2, int c3, PTX_SITE) {
  PTX_SM90(
      emulator::tensor_store(*map, {c0, c1, c2, c3}, tile, site),
      asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(map),
                   "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(shared_address(tile)) : "memory"));
}
PTX_INLINE void tma_store_5d(const CUtensorMap* map, const void* tile, int c0, int c1, int c2, int c3, int c4,
                             PTX_SITE) {
  PTX_SM90(
      emulator::tensor_store(*map, {c0, c1, c2, c3, c4}, tile, site),
      asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4, %5}], [%6];" ::"l"(map),
                   "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "r"(shared_address(tile)) : "memory"));
}
PTX_INLINE void tma_store_commit(PTX_SITE) {
  PTX_SM90(emulator::tensor_store_commit(site), asm volatile("cp.async.bulk.commit_group;" :: : "memory"));
}
template <int GROUPS>
PTX_INLINE void tma_store_wait(PTX_SITE) {
  PTX_SM90(emulator::tensor_store_wait(GROUPS, site),
           asm volatile("cp.async.bulk.wait_group %0;" ::"n"(GROUPS) : "memory"));
}
template <int GROUPS>
PTX_INLINE void tma_store_wait_read(PTX_SITE) {
  PTX_SM90(emulator::tensor_store_wait(GROUPS, site),
           asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(GROUPS) : "memory"));
}

}  // namespace ptx

// wgmma: d (64, n) (+)= a (64, k) @ b (k, n) by a warpgroup (128 threads), float32 sums, both operands in shared
// memory. k is 16 for __half and __nv_bfloat16, 8 for tf32. Thread t of the warpgroup holds, for i in [0, n/2), d[i] =
// d(t/32*16 + t%32/4 + i/2%2*8, i/4*8 + t%4*2 + i%2).
//
//   fence_proxy_async()   by threads that wrote the operands with ordinary stores, then a barrier
//   wgmma_fence()         before the first wgmma, and after d was touched otherwise
//   wgmma<T>(d, a, b, accumulate) ...
//   wgmma_commit(), wgmma_wait<GROUPS>()   d may be read, and the operands overwritten, after the wait
#pragma once
#include "ptx.cuh"

namespace ptx {

struct tf32 {
};  // the element type of wgmma<tf32>: operands are floats, of which the tensor core reads the upper 19 bits

enum class Swizzle { none = 0, bytes128 = 1, bytes64 = 2, bytes32 = 3 };  // as a descriptor has it

// A tile for wgmma: its address, two distances in bytes and the swizzle with which TMA (or the threads) filled it. The
// tile is made of blocks; `span` is the swizzle's 32, 64 or 128 bytes, 16 bytes without swizzle (a core matrix).
//
//   K-major    a row of m or n is contiguous along k. A block is 8 rows of `span` bytes.
//                with swizzle   stride    from 8 rows to the next 8: 8 * span
//                               leading   not read, 16 by custom: a product's 32 bytes of k lie in one row of the block
//                without        stride    from 8 rows to the next 8
//                               leading   between the product's two blocks along k
//   MN-major   (TRANSPOSE_A, _B; 16-bit elements) a row of k is contiguous along m or n: a block is 8 rows of k, each
//              span / 2 elements of m or n.
//                with swizzle   stride    from 8 k to the next 8: 8 * span in a tile from TMA
//                               leading   from span / 2 elements of m or n to the next; one block: not read
//                without        stride    from 8 elements of m or n to the next 8
//                               leading   from 8 k to the next 8
//
// A TMA box of `rows` rows and `span` bytes is such a tile. Wider operands are several boxes: MN-major, boxes of rows k
// and 64 elements of n one after the other have leading = rows * 128 and stride = 1024 (128-byte swizzle).
// Adding n >> 4 to a descriptor moves its tile by n bytes. The next 16 k lie 32 bytes on where the tile is K-major with
// swizzle, 16 * span bytes on where it is MN-major with swizzle; the tile itself is aligned to 8 * span.
PTX_INLINE uint64_t matrix_descriptor(const void* tile, int leading, int stride, Swizzle swizzle, PTX_SITE) {
  const uint64_t start = shared_address(tile, site);
  return (start & 0x3ffff) >> 4 | static_cast<uint64_t>(leading >> 4) << 16 | static_cast<uint64_t>(stride >> 4) << 32 |
         static_cast<uint64_t>(swizzle) << 62;
}

// The same, `bytes` further on in shared memory. The start is in the low bits, which do not overflow.
PTX_INLINE uint64_t descriptor_behind(uint64_t descriptor, int bytes) {
  return (descriptor & 0xffffffff00000000) | (static_cast<uint32_t>(descriptor) + (bytes >> 4));
}

PTX_INLINE void wgmma_fence(PTX_SITE) {
  PTX_SM90A(emulator::warpgroup_fence(site), asm volatile("wgmma.fence.sync.aligned;" :: : "memory"));
}
PTX_INLINE void wgmma_commit(PTX_SITE) {
  PTX_SM90A(emulator::warpgroup_commit(site), asm volatile("wgmma.commit_group.sync.aligned;" :: : "memory"));
}
template <int GROUPS>
PTX_INLINE void wgmma_wait(PTX_SITE) {
  PTX_SM90A(emulator::warpgroup_wait(GROUPS, site),
            asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory"));
}

#ifdef CNN_EMULATOR

inline emulator::Element wgmma_element(__half) {
  return emulator::Element::f16;
}
inline emulator::Element wgmma_element(__nv_bfloat16) {
  return emulator::Element::bf16;
}
inline emulator::Element wgmma_element(tf32) {
  return emulator::Element::tf32;
}

// n = 2 * COUNT; TRANSPOSE_A and _B say that an operand is MN-major (16-bit elements only)
template <class T, int TRANSPOSE_A = 0, int TRANSPOSE_B = 0, int COUNT>
PTX_INLINE void wgmma(float (&d)[COUNT], uint64_t a, uint64_t b, bool accumulate, PTX_SITE) {
  emulator::warpgroup_multiply({wgmma_element(T()), 2 * COUNT, accumulate, TRANSPOSE_A != 0, TRANSPOSE_B != 0}, d, a, b,
                               site);
}

#else

// Eight registers of d at a time: their names in the assembly, and the operands
#define PTX_NAMES_0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define PTX_NAMES_1 "%8,%9,%10,%11,%12,%13,%14,%15"
#define PTX_NAMES_2 "%16,%17,%18,%19,%20,%21,%22,%23"
#define PTX_NAMES_3 "%24,%25,%26,%27,%28,%29,%30,%31"
#define PTX_NAMES_4 "%32,%33,%34,%35,%36,%37,%38,%39"
#define PTX_NAMES_5 "%40,%41,%42,%43,%44,%45,%46,%47"
#define PTX_NAMES_6 "%48,%49,%50,%51,%52,%53,%54,%55"
#define PTX_NAMES_7 "%56,%57,%58,%59,%60,%61,%62,%63"
#define PTX_NAMES_8 "%64,%65,%66,%67,%68,%69,%70,%71"
#define PTX_NAMES_9 "%72,%73,%74,%75,%76,%77,%78,%79"
#define PTX_NAMES_10 "%80,%81,%82,%83,%84,%85,%86,%87"
#define PTX_NAMES_11 "%88,%89,%90,%91,%92,%93,%94,%95"
#define PTX_NAMES_12 "%96,%97,%98,%99,%100,%101,%102,%103"
#define PTX_NAMES_13 "%104,%105,%106,%107,%108,%109,%110,%111"
#define PTX_NAMES_14 "%112,%113,%114,%115,%116,%117,%118,%119"
#define PTX_NAMES_15 "%120,%121,%122,%123,%124,%125,%126,%127"
#define PTX_D(i)                                                                                                      \
  "+f"(d[8 * i]), "+f"(d[8 * i + 1]), "+f"(d[8 * i + 2]), "+f"(d[8 * i + 3]), "+f"(d[8 * i + 4]), "+f"(d[8 * i + 5]), \
      "+f"(d[8 * i + 6]), "+f"(d[8 * i + 7])
#define PTX_NAMES_N16 PTX_NAMES_0
#define PTX_D_N16 PTX_D(0)
#define PTX_NAMES_N32 PTX_NAMES_0 "," PTX_NAMES_1
#define PTX_D_N32 PTX_D(0), PTX_D(1)
#define PTX_NAMES_N64 PTX_NAMES_0 "," PTX_NAMES_1 "," PTX_NAMES_2 "," PTX_NAMES_3
#define PTX_D_N64 PTX_D(0), PTX_D(1), PTX_D(2), PTX_D(3)
#define PTX_NAMES_N96 PTX_NAMES_0 "," PTX_NAMES_1 "," PTX_NAMES_2 "," PTX_NAMES_3 "," PTX_NAMES_4 "," PTX_NAMES_5
#define PTX_D_N96 PTX_D(0), PTX_D(1), PTX_D(2), PTX_D(3), PTX_D(4), PTX_D(5)
#define PTX_NAMES_N128                                                                                        \
  PTX_NAMES_0 "," PTX_NAMES_1 "," PTX_NAMES_2 "," PTX_NAMES_3 "," PTX_NAMES_4 "," PTX_NAMES_5 "," PTX_NAMES_6 \
              "," PTX_NAMES_7
#define PTX_D_N128 PTX_D(0), PTX_D(1), PTX_D(2), PTX_D(3), PTX_D(4), PTX_D(5), PTX_D(6), PTX_D(7)
#define PTX_NAMES_N192                                                                                        \
  PTX_NAMES_0 "," PTX_NAMES_1 "," PTX_NAMES_2 "," PTX_NAMES_3 "," PTX_NAMES_4 "," PTX_NAMES_5 "," PTX_NAMES_6 \
              "," PTX_NAMES_7 "," PTX_NAMES_8 "," PTX_NAMES_9 "," PTX_NAMES_10 "," PTX_NAMES_11
#define PTX_D_N192                                                                                               \
  PTX_D(0), PTX_D(1), PTX_D(2), PTX_D(3), PTX_D(4), PTX_D(5), PTX_D(6), PTX_D(7), PTX_D(8), PTX_D(9), PTX_D(10), \
      PTX_D(11)
#define PTX_NAMES_N256                                                                                           \
  PTX_NAMES_0 "," PTX_NAMES_1 "," PTX_NAMES_2 "," PTX_NAMES_3 "," PTX_NAMES_4 "," PTX_NAMES_5 "," PTX_NAMES_6    \
              "," PTX_NAMES_7 "," PTX_NAMES_8 "," PTX_NAMES_9 "," PTX_NAMES_10 "," PTX_NAMES_11 "," PTX_NAMES_12 \
              "," PTX_NAMES_13 "," PTX_NAMES_14 "," PTX_NAMES_15
#define PTX_D_N256                                                                                               \
  PTX_D(0), PTX_D(1), PTX_D(2), PTX_D(3), PTX_D(4), PTX_D(5), PTX_D(6), PTX_D(7), PTX_D(8), PTX_D(9), PTX_D(10), \
      PTX_D(11), PTX_D(12), PTX_D(13), PTX_D(14), PTX_D(15)

template <class A, class B>
constexpr bool same_type = false;
template <class A>
constexpr bool same_type<A, A> = true;

// One size of n: `a`, `b` and `scale` are the names of the operands behind d's n/2 registers
#define PTX_WGMMA_ASM(shape, n, a, b, scale, immediates, ...)                                        \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " scale ", 0;\nwgmma.mma_async.sync.aligned." shape \
               " {" PTX_NAMES_N##n "}, " a ", " b ", p, 1, 1" immediates ";\n}"                      \
               : PTX_D_N##n                                                                          \
               : "l"(da), "l"(db), "r"(static_cast<int>(accumulate))__VA_ARGS__)
#define PTX_WGMMA(n, a, b, scale, ta, tb)                                                                           \
  template <class T, int TRANSPOSE_A = 0, int TRANSPOSE_B = 0>                                                      \
  PTX_INLINE void wgmma(float (&d)[n / 2], uint64_t da, uint64_t db, bool accumulate) {                             \
    if constexpr (same_type<T, __half>)                                                                             \
      PTX_SM90A(, PTX_WGMMA_ASM("m64n" #n "k16.f32.f16.f16", n, a, b, scale, ", " ta ", " tb, , "n"(TRANSPOSE_A),   \
                                "n"(TRANSPOSE_B)));                                                                 \
    else if constexpr (same_type<T, __nv_bfloat16>)                                                                 \
      PTX_SM90A(, PTX_WGMMA_ASM("m64n" #n "k16.f32.bf16.bf16", n, a, b, scale, ", " ta ", " tb, , "n"(TRANSPOSE_A), \
                                "n"(TRANSPOSE_B)));                                                                 \
    else                                                                                                            \
      PTX_SM90A(, PTX_WGMMA_ASM("m64n" #n "k8.f32.tf32.tf32", n, a, b, scale, ""));                                 \
  }
PTX_WGMMA(16, "%8", "%9", "%10", "%11", "%12")
PTX_WGMMA(32, "%16", "%17", "%18", "%19", "%20")
PTX_WGMMA(64, "%32", "%33", "%34", "%35", "%36")
PTX_WGMMA(96, "%48", "%49", "%50", "%51", "%52")
PTX_WGMMA(128, "%64", "%65", "%66", "%67", "%68")
PTX_WGMMA(192, "%96", "%97", "%98", "%99", "%100")
PTX_WGMMA(256, "%128", "%129", "%130", "%131", "%132")

#endif

}  // namespace ptx

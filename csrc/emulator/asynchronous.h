// Copies that finish later: cp.async, mbarriers and the bulk tensor copies (TMA) that complete on them. The emulator
// performs each as late as the rules allow, so that a kernel that does not wait reads what was there before.
#pragma once

#include "thread.h"

// 128 bytes, as on the GPU; cnn_emulator_encode_tiled and _im2col fill it in place of cuTensorMapEncodeTiled and Im2col
struct alignas(64) CUtensorMap {
  uint64_t opaque[16];
};

namespace emulator {

// cp.async: `bytes` is 4, 8 or 16; where `copy` is false the destination is filled with zeros
void copy_async(void* shared, const void* global, int bytes, bool copy, Site site);
void copy_async_commit(Site site);
void copy_async_wait(int groups_still_in_flight, Site site);

void mbarrier_init(uint64_t* barrier, int arrivals, Site site);
void mbarrier_init_fence(Site site);
void mbarrier_arrive(uint64_t* barrier, int expected_bytes, Site site);
bool mbarrier_test(uint64_t* barrier, int parity, Site site);
void mbarrier_wait(uint64_t* barrier, int parity, Site site);

// `multicast`: null, or a bit for each block of the cluster that receives the tile
void tensor_load(void* shared, const CUtensorMap& map, const int* coordinate, int rank, uint64_t* barrier,
                 const uint16_t* multicast, Site site);
// coordinates c, w, h, n and offsets along w, h, through an im2col map
void tensor_load_im2col(void* shared, const CUtensorMap& map, const int (&coordinate)[4], const int (&offset)[2],
                        uint64_t* barrier, const uint16_t* multicast, Site site);
void tensor_store(const CUtensorMap& map, const int* coordinate, int rank, const void* shared, Site site);
template <int RANK>
inline void tensor_load(void* shared, const CUtensorMap& map, const int (&coordinate)[RANK], uint64_t* barrier,
                        Site site) {
  tensor_load(shared, map, coordinate, RANK, barrier, nullptr, site);
}
template <int RANK>
inline void tensor_load(void* shared, const CUtensorMap& map, const int (&coordinate)[RANK], uint64_t* barrier,
                        uint16_t multicast, Site site) {
  tensor_load(shared, map, coordinate, RANK, barrier, &multicast, site);
}
inline void tensor_load_im2col(void* shared, const CUtensorMap& map, const int (&coordinate)[4], const int (&offset)[2],
                               uint64_t* barrier, Site site) {
  tensor_load_im2col(shared, map, coordinate, offset, barrier, nullptr, site);
}
inline void tensor_load_im2col(void* shared, const CUtensorMap& map, const int (&coordinate)[4], const int (&offset)[2],
                               uint64_t* barrier, uint16_t multicast, Site site) {
  tensor_load_im2col(shared, map, coordinate, offset, barrier, &multicast, site);
}
template <int RANK>
inline void tensor_store(const CUtensorMap& map, const int (&coordinate)[RANK], const void* shared, Site site) {
  tensor_store(map, coordinate, RANK, shared, site);
}
void tensor_store_commit(Site site);
void tensor_store_wait(int groups_still_in_flight, Site site);
void async_proxy_fence(Site site);

}  // namespace emulator

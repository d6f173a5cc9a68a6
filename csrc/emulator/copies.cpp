// cp.async: noted when issued, performed when the thread waits for its group, so that a kernel which does not wait
// finds the poison, or the tile of the iteration before.
#include "count.h"
#include "race.h"
#include "report.h"
#include "worker.h"

namespace emulator {

void copy_async(void* shared, const void* global, int bytes, bool copy, Site site) {
  Fiber* me = running();
  if (reinterpret_cast<uintptr_t>(shared) % bytes || (copy && reinterpret_cast<uintptr_t>(global) % bytes))
    fail(kind::misaligned, site, "cp.async of %d bytes between addresses that are no multiples of it", bytes);
  if (!this_block().owns(shared) || !this_block().owns(static_cast<char*>(shared) + bytes - 1))
    fail(kind::out_of_bounds, site, "cp.async writes outside the block's %zu bytes of shared memory",
         worker->shared_bytes);
  const PendingCopy pending{shared, copy ? global : nullptr, bytes, copy, me->copy_groups, site};
  race::copy_issued(pending);
  const void* code = __builtin_return_address(0);
  if (copy) count::executed(count::Kind::global_copy, static_cast<size_t>(bytes), global, site, code);
  count::executed(count::Kind::shared_copy, static_cast<size_t>(bytes), shared, site, code);
  me->copies.push_back(pending);
}

void copy_async_commit(Site) {
  running()->copy_groups++;
}

static void perform(const PendingCopy& c, Site site) {
  if (c.copy) {
    std::memcpy(c.shared, c.global, static_cast<size_t>(c.bytes));
  } else {
    std::memset(c.shared, 0, static_cast<size_t>(c.bytes));
  }
  race::copy_performed(c);
  count::landed(c, site);
}

// Groups complete in order: all but the `still` youngest are performed
void copy_async_wait(int still, Site site) {
  Fiber* me = running();
  size_t done = 0;
  while (done < me->copies.size() && me->copies[done].group < me->copy_groups - still)
    perform(me->copies[done++], site);
  me->copies.erase(me->copies.begin(), me->copies.begin() + static_cast<long>(done));
}

void check_nothing_in_flight() {
  const Fiber* me = running();
  if (!me->copies.empty())
    fail(kind::copy_wait, me->copies.front().site,
         "the thread returned from the kernel with %zu copies in flight that it never waited for", me->copies.size());
  if (!me->stores.empty())
    fail(kind::tensor_copy_wait, me->stores.front().site,
         "the thread returned from the kernel with %zu bulk tensor stores in flight: shared memory must outlive them",
         me->stores.size());
  if (!me->products.empty())
    fail(kind::wgmma_wait, me->products.front().site,
         "the thread returned from the kernel with %zu products in flight that it never waited for",
         me->products.size());
  if (me->block->live > 1) return;
  for (const PendingTensorCopy& load : worker->loads)
    if (load.block == me->block)
      fail(kind::tensor_copy_wait, load.site,
           "the last thread of the block returned with a bulk tensor load in flight into its shared memory");
}

}  // namespace emulator

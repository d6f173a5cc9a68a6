// Kernels whose warp instructions cost what can be reckoned by hand. One warp, but where said otherwise; the comment at
// a line's end names it for the tests.

struct Floats {
  float v[32 * 33 + 32];
};

// y[i] = x[first + step * i]
__global__ void strided(const float* x, float* y, int first, int step) {
  const float value = x[first + step * threadIdx.x];  // strided-load
  y[threadIdx.x] = value;                             // strided-store
}

__global__ void vectors(const float4* x, float4* y) {
  const float4 four = x[threadIdx.x];                            // float4-load
  y[threadIdx.x] = make_float4(four.w, four.z, four.y, four.x);  // float4-store
}

__global__ void triples(const float3* x, float* y) {
  const float3 three = x[threadIdx.x];  // float3-load
  y[threadIdx.x] = three.x + three.y + three.z;
}

template <class T>
__global__ void typed(const T* x, T* y) {
  y[threadIdx.x] = from_float<T>(to_float(x[threadIdx.x]) + 1.0f);  // typed
}

// word step * lane is written and read
__global__ void shared_words(float* y, int step) {
  DYN_SMEM(Floats, s);
  s->v[step * threadIdx.x] = 1.0f;            // shared-store
  __syncwarp();                               // warp-barrier
  y[threadIdx.x] = s->v[step * threadIdx.x];  // shared-load
}

// a column of rows that are `width` floats long, read by all lanes; written as rows
__global__ void columns(const float* x, float* y, int width) {
  DYN_SMEM(Floats, s);
  const int lane = threadIdx.x;
  for (int row = 0; row < 32; row++) s->v[row * width + lane] = x[row * 32 + lane];  // rows
  __syncthreads();                                                                   // block-barrier
  for (int row = 0; row < 32; row++) y[row * 32 + lane] = s->v[lane * width + row];  // columns
}

// every lane reads a vector, `step` vectors apart
template <class V>
__global__ void shared_vectors(float* y, int step) {
  DYN_SMEM(Floats, s);
  for (int i = threadIdx.x; i < 32 * 33 + 32; i += 32) s->v[i] = i;
  __syncthreads();
  const V one = reinterpret_cast<const V*>(s->v)[step * threadIdx.x];  // shared-vector
  y[threadIdx.x] = one.x;
}

// eight rows of `width` bytes for each matrix; `swizzled` exchanges 16-byte chunks within a row of 128 bytes
__global__ void matrices(uint32_t* y, int width, int swizzled) {
  DYN_SMEM(Floats, s);
  const int lane = threadIdx.x, chunk = swizzled ? lane / 8 ^ lane % 8 : lane / 8;
  for (int i = lane; i < 32 * 33; i += 32) s->v[i] = i;
  __syncthreads();
  uint32_t r[4];
  ptx::ldmatrix_x4(r, reinterpret_cast<const char*>(s) + lane % 8 * width + chunk * 16);  // ldmatrix
  for (int i = 0; i < 4; i++) y[i * 32 + lane] = r[i];
  ptx::stmatrix_x4(reinterpret_cast<char*>(s) + lane % 8 * width + chunk * 16, r);  // stmatrix
}

// 16 bytes a lane, `width` bytes apart in shared memory; lanes from `copied` on fill zeros
__global__ void copies(const char* x, float* y, int copied, int width) {
  DYN_SMEM(Floats, s);
  const int lane = threadIdx.x;
  char* to = reinterpret_cast<char*>(s) + lane * width;
  ptx::cp_async<16>(to, x + lane * 16, lane < copied);  // cp.async
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  y[lane] = *reinterpret_cast<const float*>(to);
}

// lanes below `lanes` load; every lane loads as often as its number says, at most four times
__global__ void diverging(const float* x, float* y, int lanes) {
  const int lane = threadIdx.x;
  float sum = 0.0f;
  if (lane < lanes) sum += x[lane];                           // branch
  for (int i = 0; i < lane % 4 + 1; i++) sum += x[lane + i];  // trips
  __syncwarp();
  sum += x[lane];  // together
  y[lane] = sum;   // result
}

// by warps of 32: what depends on the lane divides a warp, what depends on the warp or on arguments does not
__global__ void branches(float* y, int lanes, int rounds) {
  const int lane = threadIdx.x % 32;
  float* mine = y + threadIdx.x;
  if (lane < lanes) *mine = 1.0f;                         // by-lane
  if (threadIdx.x < 32) mine[64] = 2.0f;                  // by-warp
  for (int i = 0; i < rounds; i++) mine[128] += 1.0f;     // all-alike
  for (int i = 0; i < lane % 4 + 1; i++) mine[192] += i;  // by-trips
  for (int i = 0; i < rounds; i++) {
    for (int j = 0; j < lane % 2 + 1; j++) mine[256] += j;  // nested
    if (lane >= 16)                                         // one-of-two
      mine[320] += i;
    else
      mine[320] -= i;
    __syncthreads();
  }
  if (lane == 31) return;  // leaves
  mine[384] = 1.0f;
}

// by 64 threads, in three rounds
__global__ void barriers(int* counter, float* y) {
  float v = threadIdx.x;
  for (int round = 0; round < 3; round++) {
    __syncthreads();                          // every-block
    v += __shfl_xor_sync(0xffffffffu, v, 1);  // every-exchange
    ptx::named_barrier_sync(1, 64);           // every-named
  }
  atomicAdd(counter, 1);  // every-atomic
  y[threadIdx.x] = v;
}

// one product of a warp
__global__ void product(float* y) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  ptx::mma_m16n8k16_f16(d, a, b);  // mma
  for (int i = 0; i < 4; i++) y[i * 32 + threadIdx.x] = d[i];
}

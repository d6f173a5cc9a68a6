/* What this processor can do, measured: float32 multiply-adds in registers, and copies of arrays larger than its caches
 * with stores that go past them. Portable GNU C (vector extensions; non-temporal stores on x86); peaks.py compiles it
 * with -O3 -march=native and calls it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define MAX_THREADS 256

typedef float vector __attribute__((vector_size(4 * LANES)));

typedef struct {
  double seconds; /* how long to work at least */
  int core;       /* to run on; below 0: any */
  char* target;   /* 64-byte aligned; NULL: multiply-adds instead of a copy */
  const char* source;
  size_t bytes; /* of each, a multiple of 64 */
  pthread_barrier_t* together;
  double work, elapsed; /* results: flops or bytes, seconds */
} Job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static volatile float sink;

static void multiply_add(Job* job, double start) {
  /* 12 sums: two units times a latency of 4 or 5 need 8 to 10 in flight, 16 registers hold 12 and both operands */
  vector a[12], m, b;
  for (int i = 0; i < 12; i++)
    for (int l = 0; l < LANES; l++) a[i][l] = 1.0f + 0.01f * (float)(i + l);
  for (int l = 0; l < LANES; l++) m[l] = 0.999999f, b[l] = 1e-6f;
  long rounds = 0;
  do {
    for (int k = 0; k < 20000; k++)
      for (int i = 0; i < 12; i++) a[i] = a[i] * m + b;
    rounds++;
    job->elapsed = now() - start;
  } while (job->elapsed < job->seconds);
  for (int i = 0; i < 12; i++) sink = a[i][0];
  job->work = (double)rounds * 20000 * 12 * LANES * 2;
}

#define AHEAD 2048 /* bytes between a load and what is asked for: a quarter more than without asking */

static void copy_past_the_caches(char* target, const char* source, size_t bytes) {
#if defined(__SSE2__)
  for (size_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(source + i + AHEAD, _MM_HINT_T0);
#if defined(__AVX512F__)
    _mm512_stream_ps((float*)(target + i), _mm512_load_ps((const float*)(source + i)));
#elif defined(__AVX__)
    for (size_t j = i; j < i + 64; j += 32)
      _mm256_stream_ps((float*)(target + j), _mm256_load_ps((const float*)(source + j)));
#else
    for (size_t j = i; j < i + 64; j += 16)
      _mm_stream_ps((float*)(target + j), _mm_load_ps((const float*)(source + j)));
#endif
  }
  _mm_sfence();
#else
  memcpy(target, source, bytes);
  __asm__ volatile("" ::"r"(target) : "memory");
#endif
}

static void* run(void* argument) {
  Job* job = argument;
#ifdef __linux__
  if (job->core >= 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(job->core, &cores);
    pthread_setaffinity_np(pthread_self(), sizeof cores, &cores);
  }
#endif
  pthread_barrier_wait(job->together);
  const double start = now();
  if (!job->target) {
    multiply_add(job, start);
    return NULL;
  }
  do {
    copy_past_the_caches(job->target, job->source, job->bytes);
    job->work += 2.0 * (double)job->bytes; /* read and written */
    job->elapsed = now() - start;
  } while (job->elapsed < job->seconds);
  return NULL;
}

/* Work per second of `threads` threads together, one on each of `cores`: flops, or bytes of a copy shared among them
 * where there is a target. 0 where threads cannot be had. */
double cnn_peak(int threads, const int* cores, double seconds, char* target, const char* source, size_t bytes) {
  static Job jobs[MAX_THREADS]; /* static: should a thread be refused, those that wait for it keep what they look at */
  static pthread_barrier_t together;
  pthread_t handle[MAX_THREADS];
  double rate = 0;
  int started = 0;
  if (threads < 1 || threads > MAX_THREADS || pthread_barrier_init(&together, NULL, (unsigned)threads)) return 0;
  const size_t share = bytes / (size_t)threads / 64 * 64;
  for (; started < threads; started++) {
    const size_t offset = share * (size_t)started;
    char* into = target ? target + offset : NULL;
    jobs[started] = (Job){seconds, cores[started], into, source + offset, share, &together, 0, 0};
    if (pthread_create(&handle[started], NULL, run, &jobs[started])) return 0;
  }
  for (int i = 0; i < started; i++) {
    pthread_join(handle[i], NULL);
    if (jobs[i].elapsed > 0) rate += jobs[i].work / jobs[i].elapsed;
  }
  pthread_barrier_destroy(&together);
  return rate;
}

/* What this processor can do, measured: float32 multiply-adds in registers, and copies, or other mixtures of reads and
 * writes, of arrays larger than its caches with stores that go past them. Portable GNU C (vector extensions;
 * non-temporal stores on x86); peaks.py compiles it with -O3 -march=native and calls it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
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
  char* target;   /* 64-byte aligned; NULL: multiply-adds instead of streams */
  const char* source;
  size_t steps;      /* of `reads` lines of the source and `writes` lines of the target; a line has 64 bytes */
  int reads, writes; /* 1 and 1: a copy */
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

#if defined(__AVX512F__)
#define STREAM(p, v) _mm512_stream_ps((float*)(p), (__m512)(v))
#elif defined(__AVX__)
#define STREAM(p, v) _mm256_stream_ps((float*)(p), (__m256)(v))
#elif defined(__SSE2__)
#define STREAM(p, v) _mm_stream_ps((float*)(p), (__m128)(v))
#else
#define STREAM(p, v) (*(vector*)(p) = (v))
#endif

/* Each line written is the sum of those read in its step; that of a copy is the line read. Without writes the sums are
 * added up. */
static inline __attribute__((always_inline)) void past_the_caches(char* target, const char* source, size_t steps,
                                                                  int reads, int writes) {
  vector total = {0};
  for (size_t i = 0; i < steps; i++, source += 64 * reads, target += 64 * writes) {
    for (int r = 0; r < reads; r++) __builtin_prefetch(source + 64 * r + AHEAD, 0, 3);
    for (size_t part = 0; part < 64; part += sizeof(vector)) {
      vector sum = *(const vector*)(source + part);
      for (int r = 1; r < reads; r++) sum += *(const vector*)(source + 64 * r + part);
      for (int w = 0; w < writes; w++) STREAM(target + 64 * w + part, sum);
      if (!writes) total += sum;
    }
  }
  if (!writes) sink = total[0];
#if defined(__SSE2__)
  _mm_sfence();
#else
  __asm__ volatile("" ::"r"(target) : "memory");
#endif
}

static void stream_past_the_caches(const Job* job) {
  if (job->reads == 1 && job->writes == 1)
    past_the_caches(job->target, job->source, job->steps, 1, 1); /* unrolled */
  else
    past_the_caches(job->target, job->source, job->steps, job->reads, job->writes);
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
    stream_past_the_caches(job);
    job->work += 64.0 * (double)job->steps * (job->reads + job->writes);
    job->elapsed = now() - start;
  } while (job->elapsed < job->seconds);
  return NULL;
}

/* Work per second of `threads` threads together, one on each of `cores`: flops, or where there is a target bytes read
 * and written, `reads` lines of the source for `writes` lines of the target, which share `steps` such steps. 0 where
 * threads cannot be had. */
double cnn_peak(int threads, const int* cores, double seconds, char* target, const char* source, size_t steps,
                int reads, int writes) {
  static Job jobs[MAX_THREADS]; /* static: should a thread be refused, those that wait for it keep what they look at */
  static pthread_barrier_t together;
  pthread_t handle[MAX_THREADS];
  double rate = 0;
  int started = 0;
  if (threads < 1 || threads > MAX_THREADS || pthread_barrier_init(&together, NULL, (unsigned)threads)) return 0;
  const size_t share = steps / (size_t)threads;
  for (; started < threads; started++) {
    const size_t line = 64 * share * (size_t)started;
    char* into = target ? target + line * (size_t)writes : NULL;
    const char* from = source ? source + line * (size_t)reads : NULL;
    jobs[started] = (Job){seconds, cores[started], into, from, share, reads, writes, &together, 0, 0};
    if (pthread_create(&handle[started], NULL, run, &jobs[started])) return 0;
  }
  for (int i = 0; i < started; i++) {
    pthread_join(handle[i], NULL);
    if (jobs[i].elapsed > 0) rate += jobs[i].work / jobs[i].elapsed;
  }
  pthread_barrier_destroy(&together);
  return rate;
}

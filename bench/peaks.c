/* What this processor can do, measured: float32 multiply-adds in registers, and copies of arrays far larger than its
 * caches. Portable GNU C (vector extensions); peaks.py compiles it with -O3 -march=native and calls it.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
  double seconds;       /* how long to work */
  size_t bytes;         /* size of one array; 0: multiply-adds instead of copies */
  double work, elapsed; /* results: flops or bytes, seconds */
} Job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static volatile float sink;

static void multiply_add(Job* job) {
  /* 12 sums: two units times a latency of 4 or 5 need 8 to 10 in flight, 16 registers hold 12 and both operands */
  vector a[12], m, b;
  for (int i = 0; i < 12; i++)
    for (int l = 0; l < LANES; l++) a[i][l] = 1.0f + 0.01f * (float)(i + l);
  for (int l = 0; l < LANES; l++) m[l] = 0.999999f, b[l] = 1e-6f;
  const double start = now();
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

static void copy(Job* job) {
  char* source = aligned_alloc(4096, job->bytes);
  char* target = aligned_alloc(4096, job->bytes);
  if (source && target) {
    memset(source, 1, job->bytes); /* the pages exist before the clock starts */
    memset(target, 2, job->bytes);
    const double start = now();
    do {
      memcpy(target, source, job->bytes);
      __asm__ volatile("" ::"r"(target) : "memory");
      job->work += 2.0 * (double)job->bytes; /* read and written */
      job->elapsed = now() - start;
    } while (job->elapsed < job->seconds);
  }
  free(source);
  free(target);
}

static void* run(void* argument) {
  Job* job = argument;
  if (job->bytes)
    copy(job);
  else
    multiply_add(job);
  return NULL;
}

/* Work per second of all threads together (flops or bytes); 0 where memory or threads cannot be had. */
double cnn_peak(int threads, size_t bytes, double seconds) {
  pthread_t handle[MAX_THREADS];
  Job jobs[MAX_THREADS];
  double rate = 0;
  int started = 0;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  for (; started < threads; started++) {
    jobs[started] = (Job){seconds, bytes, 0, 0};
    if (pthread_create(&handle[started], NULL, run, &jobs[started])) break;
  }
  for (int i = 0; i < started; i++) {
    pthread_join(handle[i], NULL);
    if (jobs[i].elapsed > 0) rate += jobs[i].work / jobs[i].elapsed;
  }
  return started == threads ? rate : 0;
}

/* Log-linear latency counts of one load stream. Knows no clock and no socket. */
#ifndef BENCH_LATENCY_H
#define BENCH_LATENCY_H

#include <stdint.h>
#include <string.h>

/* 64 steps per power of two: a value is off by less than 1.6 %. */
#define LATENCY_STEPS_LOG2 6
#define LATENCY_BUCKETS (64 * 64)

typedef struct {
  uint64_t count;
  uint64_t sum_ns;
  uint64_t max_ns;
  uint32_t counts[LATENCY_BUCKETS];
} Latency;

static inline uint32_t latency_index(uint64_t ns) {
  if (ns < (1u << LATENCY_STEPS_LOG2)) return (uint32_t)ns;
  int shift = 63 - __builtin_clzll(ns) - LATENCY_STEPS_LOG2;
  return (uint32_t)(((uint64_t)(shift + 1) << LATENCY_STEPS_LOG2) + (ns >> shift) -
                    (1u << LATENCY_STEPS_LOG2));
}

static inline double latency_middle_ns(uint32_t index) {
  if (index < (1u << LATENCY_STEPS_LOG2)) return index;
  int shift = (int)(index >> LATENCY_STEPS_LOG2) - 1;
  uint64_t step = (index & ((1u << LATENCY_STEPS_LOG2) - 1)) + (1u << LATENCY_STEPS_LOG2);
  return ((double)step + 0.5) * (double)(1ull << shift);
}

static inline void latency_record(Latency *latency, uint64_t ns) {
  latency->count++;
  latency->sum_ns += ns;
  if (ns > latency->max_ns) latency->max_ns = ns;
  latency->counts[latency_index(ns)]++;
}

static inline double latency_quantile_us(const Latency *latency, double quantile) {
  uint64_t rank = (uint64_t)((double)latency->count * quantile), seen = 0;
  for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
    seen += latency->counts[i];
    if (seen > rank) return latency_middle_ns(i) / 1000.0;
  }
  return (double)latency->max_ns / 1000.0;
}

#endif

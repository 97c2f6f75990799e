/* What the kernel says about processor time: clocks, watched processes, whole cores. Knows no socket. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() __asm__ volatile("" ::: "memory")
#endif

static inline uint64_t clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* Processor time of a process over all its living threads. /proc/PID/stat counts in ticks of
   10 ms; schedstat is exact to the last context switch or tick (4 ms at HZ=250). */
static inline uint64_t process_cpu_ns(int pid) {
  char path[300];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  uint64_t total_ns = 0;
  if (!tasks) return 0;
  for (struct dirent *entry; (entry = readdir(tasks));) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, entry->d_name);
    FILE *file = fopen(path, "r");
    unsigned long long ns;
    if (!file) continue;
    if (fscanf(file, "%llu", &ns) == 1) total_ns += ns;
    fclose(file);
  }
  closedir(tasks);
  return total_ns;
}

typedef struct {
  uint64_t busy_ticks;
  uint64_t steal_ticks;
} Cores;

/* Ticks of all cores together since boot: how much of the machine somebody else used. */
static inline Cores cores_read(void) {
  Cores cores = {0, 0};
  unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
  FILE *file = fopen("/proc/stat", "r");
  if (!file) return cores;
  if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle,
             &iowait, &irq, &softirq, &steal) == 8) {
    cores.busy_ticks = user + nice + system + irq + softirq;
    cores.steal_ticks = steal;
  }
  fclose(file);
  return cores;
}

/* A child that spins at the lowest priority there is, so that a core never halts: waking a halted
   virtual core costs more than any proxy. It dies with its parent. */
static inline int keep_core_awake(int core) {
  int pid = fork();
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  sched_setaffinity(0, sizeof cores, &cores);
  struct sched_param none = {0};
  sched_setscheduler(0, SCHED_IDLE, &none);
  for (;;) RELAX();
}

#endif

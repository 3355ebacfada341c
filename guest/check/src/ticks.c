/*
 * ticks: what the timer's interrupt takes from a loop in user mode, alone on each CPU. The loop reads the TSC; what one
 * turn takes more than usual was taken by an interrupt, and /proc/interrupts tells how many those of the timer were. The
 * TSC must not go back; the times are only told. A CPU in nohz_full= may get no tick at all: boot with nohz=off to
 * measure them.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GAPS = PAGE / sizeof(u64) - 3 };

/* What a thread finds, on a page of its own. */
struct gaps {
	u64 elapsed, lost, n; /* ticks of the TSC; gaps, of which the first GAPS are kept */
	u64 kept[GAPS];
};
_Static_assert(sizeof(struct gaps) == PAGE, "a page");

struct ticks {
	struct gaps *gaps[MAX_CPUS];
	double part; /* of the test's time, for a CPU */
};

static void look(int self, void *arg)
{
	struct ticks *s = arg;
	struct gaps *g = s->gaps[self];
	struct budget b = budget_start(s->part);
	/* Far above a turn of the loop, and below any interrupt's handler under virtualisation. */
	u64 usual = tsc_from_ms(.002);
	u64 start = tsc(), last = start;
	while (last < b.end) {
		/* Broken on purpose, the clock stands and then goes back. */
		u64 now = sabotage ? last - 1 : tsc();
		if (now < last) {
			fail("CPU %d read TSC %llu after %llu", opt.cpu[self], (unsigned long long)now, (unsigned long long)last);
			return;
		}
		if (now - last > usual) {
			if (g->n < GAPS)
				g->kept[g->n] = now - last;
			g->n++;
			g->lost += now - last;
		}
		last = now;
	}
	g->elapsed = last - start;
}

/*
 * timer_interrupts returns a CPU's count in /proc/interrupts: the first line names the columns, "LOC:" has the local
 * timers. 0: it is not there.
 */
static u64 timer_interrupts(int cpu)
{
	char line[4096], name[16], *at;
	snprintf(name, sizeof name, "CPU%d", cpu);
	FILE *f = fopen("/proc/interrupts", "r");
	if (!f || !fgets(line, sizeof line, f))
		die(1, "cannot read /proc/interrupts");
	int column = 1; /* the lines below begin with a name */
	for (at = strtok(line, " \n"); at && strcmp(at, name); at = strtok(NULL, " \n"))
		column++;
	u64 count = 0;
	while (fgets(line, sizeof line, f)) {
		at = strtok(line, " \n");
		if (!at || strcmp(at, "LOC:"))
			continue;
		for (int i = 0; at && i < column; i++)
			at = strtok(NULL, " \n");
		count = at ? strtoull(at, NULL, 10) : 0;
	}
	fclose(f);
	return count;
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;
	return (x > y) - (x < y);
}

void run_ticks(const struct test *t)
{
	(void)t;
	struct ticks s = {.part = 1.0 / opt.cpus};
	for (int i = 0; i < opt.cpus; i++)
		s.gaps[i] = pages(1);
	detail("us a tick took from user mode:");
	for (int i = 0; i < opt.cpus; i++) {
		u64 before = timer_interrupts(opt.cpu[i]);
		on_cpu(i, look, &s);
		u64 n = timer_interrupts(opt.cpu[i]) - before;
		count_rounds(1);
		if (failed())
			return;
		if (n == 0) {
			detail("%s CPU %d had none", i ? ";" : "", opt.cpu[i]);
			continue;
		}
		struct gaps *g = s.gaps[i];
		u64 kept = g->n < GAPS ? g->n : GAPS;
		qsort(g->kept, kept, sizeof g->kept[0], compare);
		double each = ns_from_tsc((double)g->lost) / 1000 / (double)n;
		double middle = kept ? ns_from_tsc((double)g->kept[kept / 2]) / 1000 : 0;
		detail("%s CPU %d %.1f (%llu of them, median gap %.1f)", i ? ";" : "", opt.cpu[i], each, (unsigned long long)n, middle);
		metric_of("ticks", opt.cpu[i], (double)n);
		metric_of("tick_us", opt.cpu[i], each);
		metric_of("gap_p50_us", opt.cpu[i], middle);
		metric_of("gap_p99_us", opt.cpu[i], kept ? ns_from_tsc((double)g->kept[kept * 99 / 100]) / 1000 : 0);
		metric_of("lost_share", opt.cpu[i], (double)g->lost / (double)g->elapsed);
	}
}

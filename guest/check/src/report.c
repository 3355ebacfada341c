/* What a test found: a row for people and, with --json, an object a line for programs. */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
	_Atomic int failed; /* 1: somebody writes error, 2: error is there */
	char error[200];
	/* The main thread's. */
	char detail[300], metrics[900];
	u64 rounds;
} result;

static void write_all(const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(1, p, n);
		if (w <= 0)
			return;
		p += w;
		n -= (size_t)w;
	}
}

void say(const char *fmt, ...)
{
	char line[1600];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof line - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if ((size_t)n > sizeof line - 2)
		n = sizeof line - 2;
	line[n++] = '\n';
	write_all(line, (size_t)n);
}

_Noreturn void die(int status, const char *fmt, ...)
{
	char text[400];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	say("check: %s", text);
	_exit(status);
}

void fail(const char *fmt, ...)
{
	int none = 0;
	if (!atomic_compare_exchange_strong(&result.failed, &none, 1))
		return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(result.error, sizeof result.error, fmt, ap);
	va_end(ap);
	atomic_store(&result.failed, 2);
}

bool failed(void) { return atomic_load(&result.failed) != 0; }

static void append(char *buf, size_t size, const char *fmt, va_list ap)
{
	size_t len = strlen(buf);
	vsnprintf(buf + len, size - len, fmt, ap);
}

void detail(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	append(result.detail, sizeof result.detail, fmt, ap);
	va_end(ap);
}

void metric(const char *key, double value)
{
	size_t len = strlen(result.metrics);
	snprintf(result.metrics + len, sizeof result.metrics - len, ",\"%s\":%.10g", key, value);
}

void metric_of(const char *what, int cpu, double value)
{
	char key[40];
	snprintf(key, sizeof key, "%s_cpu%d", what, cpu);
	metric(key, value);
}

void count_rounds(u64 rounds) { result.rounds += rounds; }

void report_begin(void)
{
	memset(&result, 0, sizeof result);
	say("> %s: %s%s", current->name, current->what, sabotage ? " (broken on purpose)" : "");
}

/* json_text writes s as the inside of a JSON string; ours are ASCII. */
static const char *json_text(char *buf, size_t size, const char *s)
{
	size_t n = 0;
	for (; *s && n + 3 < size; s++) {
		if (*s == '"' || *s == '\\')
			buf[n++] = '\\';
		buf[n++] = (unsigned char)*s < ' ' ? ' ' : *s;
	}
	buf[n] = 0;
	return buf;
}

bool report_end(double seconds, bool left_out)
{
	bool bad = failed();
	const char *verdict = left_out ? "skip" : bad ? "FAIL" : "ok";
	const char *separator = bad && result.detail[0] ? "; " : "";
	say("%-12s %-4s %7.2f s %9llu  %s%s%s", current->name, verdict, seconds, (unsigned long long)result.rounds,
	    bad ? result.error : "", separator, result.detail);
	if (opt.json) {
		char d[400], e[300];
		say("{\"test\":\"%s\",\"result\":\"%s\",\"seconds\":%.3f,\"rounds\":%llu,\"detail\":\"%s\",\"error\":\"%s\"%s}",
		    current->name, left_out ? "skip" : bad ? "fail" : "ok", seconds, (unsigned long long)result.rounds,
		    json_text(d, sizeof d, result.detail), json_text(e, sizeof e, bad ? result.error : ""), result.metrics);
	}
	return !bad;
}

void report_summary(int passed, int failures, int left_out, double seconds)
{
	say("check: %d passed, %d failed, %d left out in %.1f s", passed, failures, left_out, seconds);
	if (opt.json)
		say("{\"summary\":true,\"passed\":%d,\"failed\":%d,\"skipped\":%d,\"seconds\":%.3f}", passed, failures, left_out,
		    seconds);
}

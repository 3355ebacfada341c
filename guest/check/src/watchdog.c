/*
 * The watchdog: an alarm every two seconds, taken by the main thread, tells how far a test is and ends the program,
 * with the test's name, when it hangs. It writes without stdio, as a signal handler must.
 */
#include "check.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { EVERY_S = 2, EXIT_HUNG = 3 };

static volatile sig_atomic_t waited_s;

struct line {
	char text[160];
	size_t len;
};

static void put(struct line *l, const char *s)
{
	size_t n = strlen(s);
	if (n > sizeof l->text - l->len)
		n = sizeof l->text - l->len;
	memcpy(l->text + l->len, s, n);
	l->len += n;
}

static void put_number(struct line *l, u64 n)
{
	char digits[21], *p = digits + sizeof digits - 1;
	*p = 0;
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	put(l, p);
}

static void write_line(struct line *l)
{
	put(l, "\n");
	(void)!write(1, l->text, l->len);
}

static void on_alarm(int sig)
{
	struct line l = {.len = 0};
	(void)sig;
	waited_s = waited_s + EVERY_S;
	if (waited_s < opt.timeout_s) {
		put(&l, "  ... ");
		put(&l, current->name);
		put(&l, ": ");
		put_number(&l, (u64)waited_s);
		put(&l, " s, ");
		put_number(&l, progress_sum());
		put(&l, " rounds");
		write_line(&l);
		return;
	}
	put(&l, "check: ");
	put(&l, current->name);
	put(&l, " hangs: no end after ");
	put_number(&l, (u64)waited_s);
	put(&l, " s and ");
	put_number(&l, progress_sum());
	put(&l, " rounds");
	write_line(&l);
	if (opt.json) {
		l.len = 0;
		put(&l, "{\"test\":\"");
		put(&l, current->name);
		put(&l, "\",\"result\":\"hang\"}");
		write_line(&l);
	}
	_exit(EXIT_HUNG);
}

void watchdog_init(void)
{
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	sigemptyset(&sa.sa_mask);
	sigaction(SIGALRM, &sa, NULL);
}

void watchdog_watch(void)
{
	struct itimerval every = {.it_interval.tv_sec = EVERY_S, .it_value.tv_sec = EVERY_S};
	waited_s = 0;
	setitimer(ITIMER_REAL, &every, NULL);
}

void watchdog_rest(void)
{
	struct itimerval never = {.it_value.tv_sec = 0};
	setitimer(ITIMER_REAL, &never, NULL);
}

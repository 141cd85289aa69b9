/* kill_child.h - runs this test program again as a child and kills it at a random moment */
#ifndef NIMBUS_KILL_CHILD_H
#define NIMBUS_KILL_CHILD_H

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "train_problem.h"

/* Starts a child and kills it after a random part of `span` seconds, unless span is 0. Returns
 * whether it was killed. */
static inline bool run_child(const char *checkpoint, const char *result, uint64_t round,
                             double span)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "child", "--child", checkpoint, result, (char *)NULL);
        _exit(127);
    }
    if (span > 0) {
        double seconds = span * nimbus_random_uniform(1, 1, round);
        struct timespec wait = {.tv_sec = (time_t)seconds,
                                .tv_nsec = (long)(1e9 * (seconds - floor(seconds)))};
        (void)nanosleep(&wait, NULL);
        (void)kill(pid, SIGKILL);
    }
    int how = 0;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    if (WIFSIGNALED(how)) {
        assert_int_equal(WTERMSIG(how), SIGKILL);
        return true;
    }
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    return false;
}

#endif

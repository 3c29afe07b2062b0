/* bench/commands.h: what penstock-bench can do: one row of the table in penstock_bench.c, one function in a cmd_*.c. As with
 * the daemon's own commands, argv begins with the name, and the exit status of the process comes back. */
#pragma once

int cmd_calibrate(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_replay(int argc, char **argv);

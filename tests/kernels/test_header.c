/*
 * test_header.c: a C program that uses the library through mover.h alone. It is also compiled as C++.
 */
#include "mover/mover.h"

#include <math.h>
#include <stdio.h>

int main(void) {
    /* A 3-4-5 triangle: the rows (1, 0) and (0.6, 0.8) span an area of 0.8. */
    const double v[] = {1, 0, 0.6, 0.8};
    double volume = 0;
    mover_volume_desc desc = {MOVER_FLOAT64, 1, 2, 2, 0};
    mover_status status = mover_volume_forward(&desc, v, &volume, NULL);
    if (status != MOVER_OK || fabs(volume - 0.8) > 1e-15) {
        printf("libmover %s: %s, volume %.17g\n", mover_version(), mover_status_string(status), volume);
        return 1;
    }
    desc.k = 9;
    status = mover_volume_forward(&desc, v, &volume, NULL);
    printf("libmover %s: volume %g; k = 9 gives: %s\n", mover_version(), volume, mover_last_error());
    return status == MOVER_ERROR_ARGUMENT ? 0 : 1;
}

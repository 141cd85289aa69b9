/* open.c - load a program from a file */
#include "base/base.h"

nimbus_status nimbus_open(const char *path, nimbus_program **out, nimbus_error *error)
{
    nimbus_buffer buffer = {0};
    if (!out)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!path)
        return nimbus_fail(error, NIMBUS_ERR_ARGUMENT, "path is NULL");
    nimbus_status status = nimbus_file_read(path, SIZE_MAX, &buffer, error);
    if (status == NIMBUS_OK) {
        status = nimbus_load(buffer.bytes, buffer.size, out, error);
        if (status != NIMBUS_OK)
            status = nimbus_fail_prefix(error, status, "%s", path);
    }
    nimbus_buffer_free(&buffer);
    return status;
}

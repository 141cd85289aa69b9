/* import_folder.h - a folder for the models of a test; it stays if BAD_ONNX names one */
#ifndef NIMBUS_IMPORT_FOLDER_H
#define NIMBUS_IMPORT_FOLDER_H

#include "import_helpers.h"

#include <sys/stat.h>
#include <unistd.h>

static char folder[256];

static inline void write_file(const char *name, const void *bytes, size_t n)
{
    char path[512];
    nimbus_error error;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (nimbus_file_write(path, bytes, n, &error) != NIMBUS_OK)
        fail_msg("%s", error.message);
}

static inline bool file_is_there(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return nimbus_file_exists(path);
}

static inline void remove_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!getenv("BAD_ONNX"))
        (void)remove(path);
}

/* A folder in a folder, so that tests may write beside it. */
static inline int make_folder(void **state)
{
    (void)state;
    const char *stays = getenv("BAD_ONNX");
    snprintf(folder, sizeof folder, "%s", stays ? stays : "/tmp/nimbus-bad-onnx-XXXXXX");
    if (stays)
        return 0;
    if (!mkdtemp(folder))
        return -1;
    snprintf(folder + strlen(folder), sizeof folder - strlen(folder), "/models");
    return mkdir(folder, 0777);
}

static inline int remove_folder(void **state)
{
    (void)state;
    if (getenv("BAD_ONNX"))
        return 0;
    int result = rmdir(folder);
    *strrchr(folder, '/') = '\0';
    return result || rmdir(folder);
}

#endif

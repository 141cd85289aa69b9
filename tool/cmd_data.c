/* cmd_data.c - nimbus data: lists the known data sets, checks and describes one */
#include <math.h>
#include <string.h>

#include "tool.h"

static int data_run(int argc, char **argv);

const nimbus_verb verb_data = {
    .name = "data",
    .purpose = "list the known data sets; check, describe and show one",
    .usage = "[SPEC] [options]",
    .about = "Without SPEC, lists the known data sets and whether they are there. With SPEC, reads "
             "every row of it, says what it holds, and shows the first image; for a known set that "
             "is missing, prints the command that downloads it.",
    .examples = {"nimbus data", "nimbus data mnist", "nimbus data flows.csv --label class"},
    .groups = GROUP_DATA,
    .min_files = 0,
    .max_files = 1,
    .run = data_run,
};

static int list_sources(const common_arguments *common)
{
    table t;
    json_t *list = json_array();
    table_init(&t, "llll");
    table_heads(&t, "name", "here", "what it is", "folder");
    for (size_t i = 0; i < nimbus_data_source_count(); i++) {
        nimbus_data_source source;
        nimbus_error error;
        if (nimbus_data_get_source(i, common->data_dir, &source, &error)) {
            json_decref(list);
            return fail(&error);
        }
        table_cell(&t, "%s", source.name);
        table_cell(&t, "%s", source.present ? "yes" : "no");
        table_cell(&t, "%s", source.description);
        table_cell(&t, "%s", source.folder);
        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:s,s:b,s:s}", "name", source.name, "description",
                                        source.description, "folder", source.folder, "present",
                                        source.present, "download", source.download));
    }
    if (!common->json)
        note(common, "'nimbus data NAME' describes one, or says how to get it\n");
    return result_finish(common, &t, list);
}

/* One u8 image row as text, darker characters for larger values, channels averaged. */
static void print_image(const nimbus_data *data)
{
    static const char shades[] = " .:-=+*#%@";
    const nimbus_data_info *info = nimbus_data_get_info(data);
    const uint8_t *pixels = nimbus_data_features(data);
    size_t plane = info->height * info->width;
    if (info->dtype != NIMBUS_U8 || info->height < 2 || info->width < 2 || info->width > 100 ||
        info->n_rows == 0)
        return;
    for (size_t y = 0; y < info->height; y++) {
        for (size_t x = 0; x < info->width; x++) {
            size_t sum = 0;
            for (size_t c = 0; c < info->channels; c++)
                sum += pixels[c * plane + y * info->width + x];
            char shade = shades[sum / info->channels * (sizeof shades - 2) / 255];
            putchar(shade);
            putchar(shade); /* characters are about twice as high as wide */
        }
        putchar('\n');
    }
    const int32_t *labels = nimbus_data_labels(data);
    if (labels) {
        const char *name = nimbus_data_class_name(data, (size_t)labels[0]);
        printf("first training row: class %s\n", name ? name : "?");
    }
}

static json_t *describe_split(const char *name, const nimbus_data *data, table *t)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    const int32_t *labels = nimbus_data_labels(data);
    json_t *counts = json_array();
    size_t least = SIZE_MAX, most = 0;
    for (size_t c = 0; labels && c < info->n_classes; c++) {
        size_t n = 0;
        for (size_t i = 0; i < info->n_rows; i++)
            n += (size_t)labels[i] == c;
        least = n < least ? n : least;
        most = n > most ? n : most;
        json_array_append_new(counts, json_integer((json_int_t)n));
    }
    table_cell(t, "%s", name);
    table_size(t, info->n_rows);
    if (labels)
        table_cell(t, "%zu to %zu", least, most);
    else
        table_cell(t, "-");
    return json_pack("{s:I,s:o}", "rows", (json_int_t)info->n_rows, "rows_per_class", counts);
}

static json_t *describe_classes(const nimbus_data *data)
{
    json_t *names = json_array();
    for (size_t c = 0; c < nimbus_data_get_info(data)->n_classes; c++) {
        const char *name = nimbus_data_class_name(data, c);
        json_array_append_new(names, name ? json_string(name) : json_null());
    }
    return names;
}

static void print_head(const char *spec, const nimbus_data *data)
{
    const nimbus_data_info *info = nimbus_data_get_info(data);
    printf("%s: %zu %s values a row", spec, info->n_features,
           info->dtype == NIMBUS_U8 ? "u8" : "f32");
    if (info->height > 1)
        printf(" (%zu x %zu pixels, %zu channel%s)", info->height, info->width, info->channels,
               info->channels == 1 ? "" : "s");
    if (info->n_classes)
        printf(", %zu classes:", info->n_classes);
    else
        printf(", %zu target values", info->n_targets);
    for (size_t c = 0; c < info->n_classes && c < 16; c++) {
        const char *name = nimbus_data_class_name(data, c);
        printf(" %s", name ? name : "?");
    }
    printf("%s\n\n", info->n_classes > 16 ? " ..." : "");
}

static int describe(const common_arguments *common, const char *spec)
{
    data_splits splits;
    nimbus_error error;
    table t;
    common_arguments with_data = *common;
    with_data.data = spec;
    if (splits_open(&with_data, NULL, 0, &splits, &error))
        return fail(&error);
    const nimbus_data_info *info = nimbus_data_get_info(splits.train);
    json_t *json = json_pack(
        "{s:s,s:I,s:s,s:[III],s:I,s:I,s:o}", "data", spec, "features", (json_int_t)info->n_features,
        "type", info->dtype == NIMBUS_U8 ? "u8" : "f32", "shape", (json_int_t)info->channels,
        (json_int_t)info->height, (json_int_t)info->width, "classes", (json_int_t)info->n_classes,
        "targets", (json_int_t)info->n_targets, "class_names", describe_classes(splits.train));
    if (!common->json)
        print_head(spec, splits.train);
    table_init(&t, "lrr");
    table_heads(&t, "split", "rows", "rows per class");
    json_object_set_new(json, "train", describe_split("train", splits.train, &t));
    if (splits.test)
        json_object_set_new(json, "test", describe_split("test", splits.test, &t));
    json_object_set_new(json, "schema",
                        json_loads(nimbus_data_schema(splits.train), JSON_DECODE_ANY, NULL));
    int code = result_finish(common, &t, json);
    if (!common->json && !common->quiet) {
        putchar('\n');
        print_image(splits.train);
    }
    splits_close(&splits);
    return code;
}

static int data_run(int argc, char **argv)
{
    common_arguments common = {0};
    int code = options_parse(&verb_data, argc, argv, &common);
    if (code >= 0)
        return code;
    const char *spec = common.n_files ? common.files[0] : common.data;
    return spec ? describe(&common, spec) : list_sources(&common);
}

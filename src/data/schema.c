/* schema.c - what the columns of a data set mean, as JSON text
 *
 *     {"kind":"image","dtype":"u8","shape":[1,28,28],"classes":["0",...]}
 *     {"kind":"vector","dtype":"f32","shape":[40],"targets":1}
 *     {"kind":"table","classes":["normal","attack"],"others":1,"columns":[
 *       {"name":"duration","kind":"number","mean":305.1,"map":"log1p"},
 *       {"name":"flag","kind":"category","values":["REJ","SF"],"missing":true},
 *       {"name":"label","kind":"class"}, {"name":"id","kind":"drop"}]}
 *
 * A table is read by its schema alone: see table.c for what the members of a column do. Keys come
 * in the order shown, members that do not apply are left out. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/data.h"

static const char *const kind_names[] = {"vector", "image", "table"};
static const char *const column_names[] = {"auto", "number", "category", "class", "target", "drop"};

/* ---- lists of names ----------------------------------------------------------------------- */

nimbus_status nimbus_names_set(nimbus_names *names, size_t n, const char *const *text,
                               const size_t *sizes, nimbus_error *error)
{
    nimbus_names_free(names);
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += (sizes ? sizes[i] : strlen(text[i])) + 1;
    names->name = nimbus_alloc(n, sizeof *names->name);
    names->text = nimbus_alloc(total, 1);
    if (!names->name || !names->text) {
        nimbus_names_free(names);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    }
    char *at = names->text;
    for (size_t i = 0; i < n; i++) {
        size_t size = sizes ? sizes[i] : strlen(text[i]);
        memcpy(at, text[i], size);
        names->name[i] = at;
        at += size + 1;
    }
    names->n = n;
    return NIMBUS_OK;
}

nimbus_status nimbus_names_number(nimbus_names *names, size_t n, nimbus_error *error)
{
    nimbus_names_free(names);
    names->name = nimbus_alloc(n, sizeof *names->name);
    names->text = nimbus_alloc(n, 8);
    if (!names->name || !names->text) {
        nimbus_names_free(names);
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    }
    for (size_t i = 0; i < n; i++) {
        char *at = names->text + i * 8;
        snprintf(at, 8, "%u", (unsigned)i);
        names->name[i] = at;
    }
    names->n = n;
    return NIMBUS_OK;
}

void nimbus_names_free(nimbus_names *names)
{
    nimbus_free(names->name);
    nimbus_free(names->text);
    *names = (nimbus_names){0};
}

void nimbus_schema_free(nimbus_schema *schema)
{
    for (size_t i = 0; schema->columns && i < schema->headings.n; i++)
        nimbus_names_free(&schema->columns[i].values);
    nimbus_free(schema->columns);
    nimbus_names_free(&schema->headings);
    nimbus_names_free(&schema->classes);
    *schema = (nimbus_schema){.others = SIZE_MAX};
}

size_t nimbus_column_width(const nimbus_column *column)
{
    if (column->kind == NIMBUS_COLUMN_NUMBER)
        return 1;
    return column->kind == NIMBUS_COLUMN_CATEGORY ? column->values.n + column->missing : 0;
}

size_t nimbus_schema_width(const nimbus_schema *schema)
{
    if (schema->kind != NIMBUS_SCHEMA_TABLE)
        return schema->channels * schema->height * schema->width;
    size_t width = 0;
    for (size_t i = 0; i < schema->headings.n; i++)
        width += nimbus_column_width(&schema->columns[i]);
    return width;
}

/* ---- writing ------------------------------------------------------------------------------ */

static json_t *names_json(const nimbus_names *names)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < names->n; i++)
        if (json_array_append_new(list, json_string(names->name[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static int column_json(json_t *list, const char *name, const nimbus_column *column)
{
    json_t *object = json_object();
    int failed = json_object_set_new(object, "name", json_string(name)) |
                 json_object_set_new(object, "kind", json_string(column_names[column->kind]));
    if (column->kind == NIMBUS_COLUMN_NUMBER)
        failed |= json_object_set_new(object, "mean", json_real(column->mean));
    if (column->log1p)
        failed |= json_object_set_new(object, "map", json_string("log1p"));
    if (column->kind == NIMBUS_COLUMN_CATEGORY)
        failed |= json_object_set_new(object, "values", names_json(&column->values));
    if (column->missing)
        failed |= json_object_set_new(object, "missing", json_true());
    return failed | json_array_append_new(list, object);
}

static int shape_json(json_t *root, const nimbus_schema *s)
{
    const char *dtype = s->dtype == NIMBUS_U8 ? "u8" : "f32";
    json_t *shape = s->kind == NIMBUS_SCHEMA_IMAGE
                        ? json_pack("[I,I,I]", (json_int_t)s->channels, (json_int_t)s->height,
                                    (json_int_t)s->width)
                        : json_pack("[I]", (json_int_t)s->channels);
    return json_object_set_new(root, "dtype", json_string(dtype)) |
           json_object_set_new(root, "shape", shape);
}

nimbus_status nimbus_schema_write(const nimbus_schema *s, char **text, nimbus_error *error)
{
    json_t *root = json_object();
    int failed = json_object_set_new(root, "kind", json_string(kind_names[s->kind]));
    if (s->kind != NIMBUS_SCHEMA_TABLE)
        failed |= shape_json(root, s);
    if (s->classes.n)
        failed |= json_object_set_new(root, "classes", names_json(&s->classes));
    if (s->others != SIZE_MAX)
        failed |= json_object_set_new(root, "others", json_integer((json_int_t)s->others));
    if (s->n_targets)
        failed |= json_object_set_new(root, "targets", json_integer((json_int_t)s->n_targets));
    if (s->kind == NIMBUS_SCHEMA_TABLE) {
        json_t *columns = json_array();
        for (size_t i = 0; i < s->headings.n; i++)
            failed |= column_json(columns, s->headings.name[i], &s->columns[i]);
        failed |= json_object_set_new(root, "columns", columns);
    }
    size_t size = failed ? 0 : json_dumpb(root, NULL, 0, JSON_COMPACT | JSON_REAL_PRECISION(9));
    *text = size ? nimbus_alloc(size + 1, 1) : NULL;
    if (*text)
        (void)json_dumpb(root, *text, size, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(root);
    return *text ? NIMBUS_OK
                 : nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the schema's text");
}

/* ---- reading ------------------------------------------------------------------------------ */

static nimbus_status read_names(const json_t *list, size_t limit, const char *what,
                                nimbus_names *out, nimbus_error *error)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > limit)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "schema: %s is not a list of at most %zu strings", what, limit);
    const char **text = nimbus_alloc(n, sizeof *text);
    nimbus_status status = NIMBUS_OK;
    if (!text)
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu names", n);
    for (size_t i = 0; status == NIMBUS_OK && i < n; i++) {
        text[i] = json_string_value(json_array_get(list, i));
        if (!text[i])
            status = nimbus_fail(error, NIMBUS_ERR_FORMAT,
                                 "schema: element %zu of %s is not a string", i, what);
    }
    if (status == NIMBUS_OK)
        status = nimbus_names_set(out, n, text, NULL, error);
    nimbus_free(text);
    return status;
}

/* Index of a string member in a list of n words; n if absent or another. */
static size_t read_word(const json_t *object, const char *key, const char *const *words, size_t n)
{
    const char *word = json_string_value(json_object_get(object, key));
    size_t i = 0;
    while (i < n && (!word || strcmp(word, words[i]) != 0))
        i++;
    return i;
}

static nimbus_status read_column(const json_t *object, size_t i, nimbus_column *out,
                                 nimbus_error *error)
{
    size_t kind = read_word(object, "kind", column_names, NIMBUS_COLUMN_DROP + 1);
    if (kind == NIMBUS_COLUMN_AUTO || kind > NIMBUS_COLUMN_DROP)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "schema: the kind of column %zu is not number, category, class, "
                           "target or drop",
                           i + 1);
    out->kind = (nimbus_column_kind)kind;
    if (kind == NIMBUS_COLUMN_NUMBER) {
        static const char *const maps[] = {"log1p"};
        const json_t *mean = json_object_get(object, "mean");
        out->mean = json_number_value(mean);
        out->log1p = read_word(object, "map", maps, 1) == 0;
        if (!json_is_number(mean) || !isfinite((float)out->mean) ||
            (json_object_get(object, "map") && !out->log1p))
            return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                               "schema: column %zu needs a number as its mean and, if any, "
                               "\"log1p\" as its map",
                               i + 1);
    }
    if (kind != NIMBUS_COLUMN_CATEGORY)
        return NIMBUS_OK;
    out->missing = json_is_true(json_object_get(object, "missing"));
    return read_names(json_object_get(object, "values"), NIMBUS_DATA_MAX_NAMES,
                      "the values of a category", &out->values, error);
}

static nimbus_status read_columns(const json_t *list, nimbus_schema *out, nimbus_error *error)
{
    size_t n = json_array_size(list), n_labels = 0;
    if (n == 0 || n > NIMBUS_DATA_MAX_COLUMNS)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "schema: columns is not a list of 1 to %d columns",
                           NIMBUS_DATA_MAX_COLUMNS);
    json_t *headings = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *name = json_object_get(json_array_get(list, i), "name");
        if (json_array_append(headings, name ? name : json_null()) != 0) {
            json_decref(headings);
            return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the schema");
        }
    }
    nimbus_status status = read_names(headings, n, "the column names", &out->headings, error);
    json_decref(headings);
    if (status != NIMBUS_OK)
        return status;
    out->columns = nimbus_alloc(n, sizeof *out->columns);
    if (!out->columns)
        return nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for %zu columns", n);
    for (size_t i = 0; status == NIMBUS_OK && i < n; i++) {
        status = read_column(json_array_get(list, i), i, &out->columns[i], error);
        nimbus_column_kind kind = out->columns[i].kind;
        n_labels += kind == NIMBUS_COLUMN_CLASS || kind == NIMBUS_COLUMN_TARGET;
        if (kind == NIMBUS_COLUMN_TARGET)
            out->n_targets = 1;
        if (status == NIMBUS_OK && kind == NIMBUS_COLUMN_CLASS && out->classes.n == 0)
            status =
                nimbus_fail(error, NIMBUS_ERR_FORMAT,
                            "schema: column %zu is the class, but there are no classes", i + 1);
    }
    if (status == NIMBUS_OK && (n_labels > 1 || nimbus_schema_width(out) == 0))
        status = nimbus_fail(error, NIMBUS_ERR_FORMAT,
                             "schema: a table has features and at most one label column");
    return status;
}

static nimbus_status read_shape(const json_t *root, nimbus_schema *out, nimbus_error *error)
{
    static const char *const dtypes[] = {"u8", "f32"};
    size_t dtype = read_word(root, "dtype", dtypes, 2), total = 1;
    const json_t *list = json_object_get(root, "shape");
    size_t n = out->kind == NIMBUS_SCHEMA_IMAGE ? 3 : 1;
    size_t *shape[] = {&out->channels, &out->height, &out->width};
    out->channels = out->height = out->width = 1;
    bool good = dtype < 2 && json_array_size(list) == n;
    for (size_t i = 0; good && i < n; i++) {
        json_int_t v = json_integer_value(json_array_get(list, i));
        good = v > 0 && (uint64_t)v <= NIMBUS_DATA_MAX_BYTES &&
               !nimbus_mul_overflows(total, (size_t)v, &total) && total <= NIMBUS_DATA_MAX_BYTES;
        if (good)
            *shape[i] = (size_t)v;
    }
    if (!good)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT,
                           "schema: expected dtype \"u8\" or \"f32\" and a shape of %zu positive "
                           "integers",
                           n);
    out->dtype = dtype == 0 ? NIMBUS_U8 : NIMBUS_F32;
    return NIMBUS_OK;
}

static nimbus_status read_root(const json_t *root, nimbus_schema *out, nimbus_error *error)
{
    size_t kind = read_word(root, "kind", kind_names, 3);
    if (kind == 3)
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "schema: kind is not vector, image or table");
    out->kind = (nimbus_schema_kind)kind;
    nimbus_status status = NIMBUS_OK;
    const json_t *classes = json_object_get(root, "classes");
    if (classes)
        status = read_names(classes, NIMBUS_DATA_MAX_NAMES, "classes", &out->classes, error);
    if (status != NIMBUS_OK)
        return status;
    json_t *others = json_object_get(root, "others");
    json_int_t other = json_integer_value(others);
    if (others && (!json_is_integer(others) || other < 0 || (size_t)other >= out->classes.n))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "schema: others is not the number of a class");
    if (others)
        out->others = (size_t)other;
    json_int_t targets = json_integer_value(json_object_get(root, "targets"));
    if (targets < 0 || targets > (1 << 24))
        return nimbus_fail(error, NIMBUS_ERR_FORMAT, "schema: targets is not 0 to %d", 1 << 24);
    out->n_targets = (size_t)targets;
    if (kind != NIMBUS_SCHEMA_TABLE)
        return read_shape(root, out, error);
    return read_columns(json_object_get(root, "columns"), out, error);
}

nimbus_status nimbus_schema_read(const char *text, nimbus_schema **out, nimbus_error *error)
{
    *out = NULL;
    json_error_t json_error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &json_error);
    if (!root)
        return nimbus_fail_at(error, NIMBUS_ERR_FORMAT, (uint64_t)json_error.position,
                              "schema: %s (line %d, column %d)", json_error.text, json_error.line,
                              json_error.column);
    nimbus_schema *schema = nimbus_alloc(1, sizeof *schema);
    nimbus_status status;
    if (schema) {
        schema->others = SIZE_MAX;
        status = read_root(root, schema, error);
    } else {
        status = nimbus_fail(error, NIMBUS_ERR_MEMORY, "no memory for the schema");
    }
    json_decref(root);
    if (status != NIMBUS_OK && schema) {
        nimbus_schema_free(schema);
        nimbus_free(schema);
        schema = NULL;
    }
    *out = schema;
    return status;
}

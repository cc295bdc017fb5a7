/* Scripts: what is answered to which statements, and the record of what was asked.
 *
 * A script is read again for every statement, so that a test may change it. Lines of an entry:
 *   entry NAME              match TEXT (all of them, in SQL)     user NAME (of the session)    times N (uses, then none)
 *   column NAME TYPE [precision|size scale]                      row v|v (~ is null)           repeat N ({n} counts)
 *   out PLACEHOLDER VALUE   cursor PLACEHOLDER ENTRY             result ENTRY                  count N (rows changed)
 *   error CODE TEXT         block (until broken or too late)     sleep MS                      lost (the connection)
 *   warning CODE TEXT (done, with a word to it)
 *   deaf (while it sleeps a break is not noticed: it hits what comes next, as one that came too late)
 */
#include "client.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static Script *all = NULL;

Script *script_at(const char *path, int length)
{
    pthread_mutex_lock(&all_lock);
    Script *script = all;
    while (script && !(strlen(script->path) == (size_t)length && memcmp(script->path, path, (size_t)length) == 0))
        script = script->next;
    if (!script) {
        script = calloc(1, sizeof *script);
        script->path = strndup(path, (size_t)length);
        script->next = all;
        all = script;
    }
    pthread_mutex_unlock(&all_lock);
    return script;
}

/* "\n" in a script is the end of a line, as in C. */
static char *unescaped(const char *text)
{
    char *copy = strdup(text), *to = copy;
    for (const char *from = copy; *from; from++) {
        if (*from == '\\' && from[1] == 'n') { *to++ = '\n'; from++; }
        else *to++ = *from;
    }
    *to = 0;
    return copy;
}

char *script_escaped(const char *text, size_t length)
{
    char *copy = malloc(length * 2 + 1), *to = copy;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n') { *to++ = '\\'; *to++ = 'n'; }
        else if (text[i] == '\t') { *to++ = '\\'; *to++ = 't'; }
        else *to++ = text[i];
    }
    *to = 0;
    return copy;
}

static const struct { const char *name; uint16_t type; uint8_t form; } TYPES[] = {
    {"NUMBER", T_NUM, 1}, {"VARCHAR2", T_CHR, 1}, {"NVARCHAR2", T_CHR, 2}, {"CHAR", T_AFC, 1}, {"RAW", T_BIN, 1},
    {"DATE", T_DAT, 1}, {"TIMESTAMP", T_TIMESTAMP, 1}, {"TIMESTAMPTZ", T_TIMESTAMP_TZ, 1},
    {"TIMESTAMPLTZ", T_TIMESTAMP_LTZ, 1}, {"INTERVALDS", T_INTERVAL_DS, 1}, {"INTERVALYM", T_INTERVAL_YM, 1},
    {"CLOB", T_CLOB, 1}, {"BLOB", T_BLOB, 1}, {"FLOAT", T_IFLOAT, 1}, {"DOUBLE", T_IDOUBLE, 1}, {"JSON", T_JSON, 1},
};

static void read_column(Entry *entry, const char *text)
{
    Column *column = &entry->columns[entry->column_count++];
    char type[32] = "";
    int first = 0, second = 0;
    column->kind = COLUMN;
    sscanf(text, "%127s %31s %d %d", column->name, type, &first, &second);
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (strcmp(TYPES[i].name, type) != 0) continue;
        column->type = TYPES[i].type;
        column->form = TYPES[i].form;
    }
    column->precision = (int16_t)first;
    /* A number without either has a scale that says so. */
    column->scale = (int8_t)(column->type == T_NUM && first == 0 ? -127 : second);
    column->size = (uint16_t)(first > 0 ? first : 200);
}

Entry *script_read(Script *script)
{
    FILE *file = fopen(script->path, "r");
    if (!file) return NULL;
    Entry *first = NULL, *entry = NULL;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, file)) > 0) {
        while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) line[--length] = 0;
        char *word = line + strspn(line, " ");
        if (!*word || *word == '#') continue;
        char *rest = word + strcspn(word, " ");
        if (*rest) *rest++ = 0;
        if (strcmp(word, "entry") == 0) {
            Entry *next = calloc(1, sizeof *next);
            next->name = strdup(rest);
            next->times = -1;
            next->repeat = 1;
            if (entry) entry->next = next; else first = next;
            entry = next;
            continue;
        }
        if (!entry) continue;
        char *second = rest + strcspn(rest, " ");
        if (strcmp(word, "match") == 0) entry->match[entry->match_count++] = unescaped(rest);
        else if (strcmp(word, "user") == 0) entry->user = strdup(rest);
        else if (strcmp(word, "times") == 0) entry->times = atoi(rest);
        else if (strcmp(word, "column") == 0) read_column(entry, rest);
        else if (strcmp(word, "row") == 0) {
            entry->rows = realloc(entry->rows, sizeof(char *) * (size_t)(entry->row_count + 1));
            entry->rows[entry->row_count++] = unescaped(rest);
        }
        else if (strcmp(word, "repeat") == 0) entry->repeat = atoi(rest);
        else if (strcmp(word, "count") == 0) entry->count = strtoull(rest, NULL, 10);
        else if (strcmp(word, "block") == 0) entry->block = 1;
        else if (strcmp(word, "deaf") == 0) entry->deaf = 1;
        else if (strcmp(word, "sleep") == 0) entry->sleep = atoi(rest);
        else if (strcmp(word, "lost") == 0) entry->lost = 1;
        else if (strcmp(word, "result") == 0) entry->results[entry->result_count++] = strdup(rest);
        else if (strcmp(word, "error") == 0 || strcmp(word, "warning") == 0) {
            *(*word == 'e' ? &entry->error : &entry->warning) = atoi(rest);
            entry->text = unescaped(*second ? second + 1 : "");
        } else if (strcmp(word, "out") == 0 || strcmp(word, "cursor") == 0) {
            char **pair = *word == 'o' ? entry->outs[entry->out_count++] : entry->cursors[entry->cursor_count++];
            pair[1] = unescaped(*second ? second + 1 : "");
            pair[0] = strndup(rest, (size_t)(second - rest));
        }
    }
    free(line);
    fclose(file);
    return first;
}

void script_free(Entry *entry)
{
    while (entry) {
        Entry *next = entry->next;
        free(entry->name);
        free(entry->user);
        free(entry->text);
        for (int i = 0; i < entry->match_count; i++) free(entry->match[i]);
        for (int i = 0; i < entry->row_count; i++) free(entry->rows[i]);
        free(entry->rows);
        for (int i = 0; i < entry->out_count; i++) { free(entry->outs[i][0]); free(entry->outs[i][1]); }
        for (int i = 0; i < entry->cursor_count; i++) { free(entry->cursors[i][0]); free(entry->cursors[i][1]); }
        for (int i = 0; i < entry->result_count; i++) free(entry->results[i]);
        free(entry);
        entry = next;
    }
}

Entry *script_named(Entry *entry, const char *name)
{
    while (entry && strcmp(entry->name, name) != 0) entry = entry->next;
    return entry;
}

/* How often an entry was used before; counts this use. */
static int use(Script *script, const char *name)
{
    for (int i = 0; i < script->used_count; i++)
        if (strcmp(script->used[i].name, name) == 0) return script->used[i].count++;
    if (script->used_count < 256) {
        strncpy(script->used[script->used_count].name, name, 127);
        script->used[script->used_count++].count = 1;
    }
    return 0;
}

Entry *script_find(Script *script, Entry *entry, const char *sql, const char *user)
{
    pthread_mutex_lock(&all_lock);
    for (; entry; entry = entry->next) {
        int is_it = entry->match_count > 0 && (!entry->user || strcmp(entry->user, user) == 0);
        for (int i = 0; i < entry->match_count; i++) is_it = is_it && strstr(sql, entry->match[i]);
        if (is_it && (entry->times < 0 || use(script, entry->name) < entry->times)) break;
    }
    pthread_mutex_unlock(&all_lock);
    return entry;
}

void script_record(Script *script, const char *format, ...)
{
    if (!script) return;
    char path[4096];
    snprintf(path, sizeof path, "%s.record", script->path);
    pthread_mutex_lock(&all_lock);
    FILE *file = fopen(path, "a");
    if (file) {
        va_list arguments;
        va_start(arguments, format);
        vfprintf(file, format, arguments);
        va_end(arguments);
        fputc('\n', file);
        fclose(file);
    }
    pthread_mutex_unlock(&all_lock);
}

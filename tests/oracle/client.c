/* A client library of Oracle's interface that has no server behind it: a script says what is answered.
 *
 * It is loaded by ODPI-C as the real one would be, so that the driver, the crate and ODPI-C run as they are. It knows what they
 * call, and nothing of Oracle's semantics. */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static int fail(Handle *error, int code, const char *text)
{
    if (error) {
        error->code = code;
        snprintf(error->message, sizeof error->message, "ORA-%05d: %s\n", code, text);
    }
    return ERROR;
}

void OCIClientVersion(int *major, int *minor, int *update, int *patch, int *port)
{
    *major = 18;
    *minor = 3;
    *update = *patch = *port = 0;
}

/* Threads and handles. */

static pthread_key_t thread_key;

void OCIThreadProcessInit(void) {}

int OCIThreadKeyInit(void *handle, void *error, void **key, void (*end)(void *))
{
    (void)handle, (void)error;
    pthread_key_create(&thread_key, end);
    *key = &thread_key;
    return SUCCESS;
}

int OCIThreadKeyGet(void *handle, void *error, void *key, void **value)
{
    (void)handle, (void)error;
    *value = pthread_getspecific(*(pthread_key_t *)key);
    return SUCCESS;
}

int OCIThreadKeySet(void *handle, void *error, void *key, void *value)
{
    (void)handle, (void)error;
    return pthread_setspecific(*(pthread_key_t *)key, value) == 0 ? SUCCESS : ERROR;
}

int OCIThreadKeyDestroy(void *handle, void *error, void **key)
{
    (void)handle, (void)error, (void)key;
    return SUCCESS;
}

static Handle *make(uint32_t kind)
{
    Handle *handle = calloc(1, sizeof *handle);
    handle->kind = kind;
    if (kind == H_SERVICE) {
        pthread_condattr_t clock;
        pthread_condattr_init(&clock);
        pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
        pthread_mutex_init(&handle->lock, NULL);
        pthread_cond_init(&handle->wake, &clock);
    }
    return handle;
}

int OCIEnvNlsCreate(void **handle, uint32_t mode, void *context, void *allocate, void *reallocate, void *release,
                    size_t extra, void **memory, uint16_t charset, uint16_t ncharset)
{
    (void)mode, (void)context, (void)allocate, (void)reallocate, (void)release, (void)extra, (void)memory;
    (void)charset, (void)ncharset;
    *handle = make(H_ENV);
    return SUCCESS;
}

int OCIHandleAlloc(const void *parent, void **handle, uint32_t kind, size_t extra, void **memory)
{
    (void)parent, (void)extra, (void)memory;
    *handle = make(kind);
    return SUCCESS;
}

int OCIHandleFree(void *pointer, uint32_t kind)
{
    Handle *handle = pointer;
    if (kind == H_STATEMENT) {
        if (handle->owns_entries) script_free(handle->entries);
        for (int i = 0; i < handle->bind_count; i++) free(handle->binds[i].name);
        free(handle->sql);
        free(handle->upper);
    }
    free(handle->data);
    free(handle);
    return SUCCESS;
}

int OCIDescriptorAlloc(const void *parent, void **descriptor, uint32_t kind, size_t extra, void **memory)
{
    return OCIHandleAlloc(parent, descriptor, kind, extra, memory);
}

int OCIDescriptorFree(void *descriptor, uint32_t kind)
{
    /* Descriptions of columns belong to their script. */
    return *(uint32_t *)descriptor == COLUMN ? SUCCESS : OCIHandleFree(descriptor, kind);
}

int OCIArrayDescriptorAlloc(const void *parent, void **descriptors, uint32_t kind, uint32_t count, size_t extra,
                            void **memory)
{
    for (uint32_t i = 0; i < count; i++) OCIHandleAlloc(parent, &descriptors[i], kind, extra, memory);
    return SUCCESS;
}

int OCIArrayDescriptorFree(void **descriptors, uint32_t kind)
{
    /* ODPI-C frees them one by one where it says how many there are; here it does not, so they are left. */
    (void)descriptors, (void)kind;
    return SUCCESS;
}

int OCIErrorGet(void *handle, uint32_t record, char *state, int32_t *code, char *text, uint32_t room, uint32_t kind)
{
    (void)record, (void)state, (void)kind;
    *code = ((Handle *)handle)->code;
    snprintf(text, room, "%s", ((Handle *)handle)->message);
    return SUCCESS;
}

int OCINlsNumericInfoGet(void *environment, void *error, int32_t *value, uint16_t item)
{
    (void)environment, (void)error, (void)item;
    *value = 4;
    return SUCCESS;
}

int OCINlsCharSetIdToName(void *environment, char *text, size_t room, uint16_t id)
{
    (void)environment, (void)id;
    snprintf(text, room, "AL32UTF8");
    return SUCCESS;
}

/* Attributes. */

static void set(void *place, uint64_t value, size_t size) { memcpy(place, &value, size); }

static int column_attribute(const Column *column, void *place, uint32_t *size, uint32_t attribute)
{
    switch (attribute) {
        case 4: *(const char **)place = column->name; *size = (uint32_t)strlen(column->name); break;
        case 2: set(place, column->type, 2); break;
        case 32: set(place, column->form, 1); break;
        case 5: set(place, (uint16_t)column->precision, 2); break;
        case 6: set(place, (uint8_t)column->scale, 1); break;
        case 1: case 286: set(place, column->size, 2); break;
        case 7: set(place, 1, 1); break;
        default: return ERROR;
    }
    return SUCCESS;
}

int OCIAttrGet(const void *pointer, uint32_t kind, void *place, uint32_t *size, uint32_t attribute, void *error)
{
    const Handle *handle = pointer;
    if (*(const uint32_t *)pointer == COLUMN) return column_attribute(pointer, place, size, attribute);
    switch (kind == 9 ? H_SESSION : (int)kind) {
        case H_ENV: set(place, 873, 2); return SUCCESS;
        case H_ERROR: set(place, 0, 4); return SUCCESS;
        case H_SERVER:
            /* Whether it is connected; its character set. */
            if (attribute == 143) set(place, handle->is_lost ? 0 : 1, 4); else set(place, 873, 2);
            return SUCCESS;
        case H_SESSION: set(place, 0, 4); return SUCCESS;
        case H_SERVICE:
            if (attribute == 6) *(void **)place = handle->server;
            else if (attribute == 7) *(void **)place = handle->session;
            else if (attribute == 531) set(place, handle->timeout, 4);
            else set(place, 0, 4);
            return SUCCESS;
        case H_STATEMENT: {
            uint32_t count = handle->entry ? (uint32_t)handle->entry->column_count : 0;
            switch (attribute) {
                case 24: set(place, handle->type, 2); return SUCCESS;
                case 218: set(place, 0, 1); return SUCCESS;
                case 18: set(place, count, 4); return SUCCESS;
                case 190: {
                    uint32_t binds = 0;
                    for (const char *at = handle->sql; at && (at = strchr(at, ':')); at++) binds++;
                    set(place, binds, 4);
                    return SUCCESS;
                }
                case 197: set(place, handle->fetched, 4); return SUCCESS;
                case 457: set(place, handle->entry ? handle->entry->count : 0, 8); return SUCCESS;
                default: set(place, 0, 2); return SUCCESS;
            }
        }
    }
    return fail(error, 24315, "illegal attribute type");
}

int OCIAttrSet(void *pointer, uint32_t kind, void *value, uint32_t size, uint32_t attribute, void *error)
{
    Handle *handle = pointer;
    (void)error;
    char *to = NULL;
    if (kind == H_SERVICE && attribute == 6) handle->server = value;
    if (kind == H_SERVICE && attribute == 7) handle->session = value;
    if (kind == H_SERVICE && attribute == 531) memcpy(&handle->timeout, value, 4);
    if (kind == H_SESSION) {
        if (attribute == 22) to = handle->user;
        if (attribute == 366) to = handle->module;
        if (attribute == 367) to = handle->action;
        if (attribute == 278) to = handle->client;
        if (attribute == 425) to = handle->class;
    }
    if (to) snprintf(to, 128, "%.*s", (int)size, (char *)value);
    return SUCCESS;
}

int OCIParamGet(const void *pointer, uint32_t kind, void *error, void **parameter, uint32_t position)
{
    const Handle *statement = pointer;
    (void)kind;
    if (!statement->entry || position > (uint32_t)statement->entry->column_count)
        return fail(error, 24334, "no descriptor for this position");
    *parameter = &statement->entry->columns[position - 1];
    return SUCCESS;
}

/* Sessions. */

int OCIServerAttach(void *pointer, void *error, const char *link, int32_t length, uint32_t mode)
{
    (void)mode;
    Handle *server = pointer;
    server->script = script_at(link, length);
    FILE *file = fopen(server->script->path, "r");
    if (!file) return fail(error, 12541, "TNS:no listener");
    fclose(file);
    return SUCCESS;
}

int OCIServerDetach(void *server, void *error, uint32_t mode)
{
    (void)server, (void)error, (void)mode;
    return SUCCESS;
}

static int begin(Handle *service, Handle *error)
{
    Script *script = service->server->script;
    Entry *entries = script_read(script);
    Entry *entry = script_find(script, entries, "logon", service->session->user);
    int code = entry ? entry->error : 0;
    char text[512] = "";
    if (code) snprintf(text, sizeof text, "%s", entry->text);
    script_free(entries);
    if (code) return fail(error, code, text);
    script_record(script, "LOGON\t%s\tclass=%s", service->session->user, service->session->class);
    return SUCCESS;
}

int OCISessionBegin(void *service, void *error, void *session, uint32_t credentials, uint32_t mode)
{
    (void)credentials, (void)mode;
    ((Handle *)service)->session = session;
    return begin(service, error);
}

int OCISessionEnd(void *service, void *error, void *session, uint32_t mode)
{
    (void)error, (void)session, (void)mode;
    script_record(((Handle *)service)->server->script, "LOGOFF\t%s", ((Handle *)service)->session->user);
    return SUCCESS;
}

int OCISessionGet(void *environment, void *error, void **place, void *authentication, const char *link, uint32_t length,
                  const char *tag, uint32_t tag_length, const char **found_tag, uint32_t *found_length, int *found,
                  uint32_t mode)
{
    (void)environment, (void)tag, (void)tag_length, (void)found_tag, (void)found_length, (void)found, (void)mode;
    Handle *service = make(H_SERVICE);
    service->server = make(H_SERVER);
    service->session = make(H_SESSION);
    if (authentication) {
        Handle *from = authentication;
        memcpy(service->session->user, from->user, sizeof from->user);
        memcpy(service->session->class, from->class, sizeof from->class);
    }
    *place = service;
    int status = OCIServerAttach(service->server, error, link, (int32_t)length, 0);
    return status == SUCCESS ? begin(service, error) : status;
}

int OCISessionRelease(void *service, void *error, const char *tag, uint32_t length, uint32_t mode)
{
    (void)tag, (void)length, (void)mode;
    return OCISessionEnd(service, error, NULL, 0);
}

/* Messages to the server: all of them end by a break, also by one that came before them. */

static int reach(Handle *service, Handle *error)
{
    if (service->server->is_lost) return fail(error, 3114, "not connected to ORACLE");
    pthread_mutex_lock(&service->lock);
    int broken = service->broken;
    service->broken = 0;
    pthread_mutex_unlock(&service->lock);
    return broken ? fail(error, 1013, "user requested cancel of current operation") : SUCCESS;
}

/* Waits for so long (for ever: -1), for a break, or for the end of the time that a call may take. */
static int work(Handle *service, Handle *error, int milliseconds, int is_deaf)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int is_limited = service->timeout > 0 && (milliseconds < 0 || service->timeout < (uint32_t)milliseconds);
    long wait = is_limited ? (long)service->timeout : milliseconds < 0 ? 3600000L : milliseconds;
    until.tv_sec += wait / 1000;
    until.tv_nsec += wait % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) { until.tv_sec++; until.tv_nsec -= 1000000000L; }
    pthread_mutex_lock(&service->lock);
    int status = 0;
    while ((is_deaf || !service->broken) && status != ETIMEDOUT)
        status = pthread_cond_timedwait(&service->wake, &service->lock, &until);
    int broken = service->broken && !is_deaf;
    if (broken) service->broken = 0;
    pthread_mutex_unlock(&service->lock);
    if (broken) return fail(error, 1013, "user requested cancel of current operation");
    return is_limited ? fail(error, 3156, "OCI call timed out") : SUCCESS;
}

int OCIBreak(void *pointer, void *error)
{
    (void)error;
    Handle *service = pointer;
    pthread_mutex_lock(&service->lock);
    service->broken = 1;
    pthread_cond_broadcast(&service->wake);
    pthread_mutex_unlock(&service->lock);
    script_record(service->server->script, "BREAK");
    return SUCCESS;
}

int OCIReset(void *service, void *error)
{
    (void)service, (void)error;
    return SUCCESS;
}

int OCIPing(void *service, void *error, uint32_t mode)
{
    (void)mode;
    return reach(service, error);
}

static int end(Handle *service, Handle *error, const char *what)
{
    int status = reach(service, error);
    if (status == SUCCESS) script_record(service->server->script, "%s", what);
    return status;
}

int OCITransCommit(void *service, void *error, uint32_t flags)
{
    (void)flags;
    return end(service, error, "COMMIT");
}

int OCITransRollback(void *service, void *error, uint32_t flags)
{
    (void)flags;
    return end(service, error, "ROLLBACK");
}

/* Statements. */

static uint16_t type_of(const char *sql)
{
    static const struct { const char *word; uint16_t type; } TYPES[] = {
        {"select", 1}, {"with", 1}, {"update", 2}, {"delete", 3}, {"insert", 4}, {"create", 5}, {"drop", 6},
        {"alter", 7}, {"begin", 8}, {"declare", 9}, {"call", 10}, {"merge", 16},
    };
    while (strchr(" \t\r\n", *sql) && *sql) sql++;
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strncasecmp(sql, TYPES[i].word, strlen(TYPES[i].word)) == 0) return TYPES[i].type;
    return 0;
}

int OCIStmtPrepare2(void *service, void **place, void *error, const char *sql, uint32_t length, const char *key,
                    uint32_t key_length, uint32_t language, uint32_t mode)
{
    (void)error, (void)key, (void)key_length, (void)language, (void)mode;
    Handle *statement = make(H_STATEMENT);
    statement->service = service;
    statement->sql = strndup(sql, length);
    /* Quotes hide colons: what is within them is no placeholder. */
    int is_quoted = 0;
    for (char *at = statement->sql; *at; at++) {
        if (*at == '\'' || *at == '"') is_quoted = !is_quoted;
        if (*at == ':' && (is_quoted || at[1] == '=')) *at = '\001';
    }
    statement->type = type_of(statement->sql);
    *place = statement;
    return SUCCESS;
}

int OCIStmtRelease(void *statement, void *error, const char *key, uint32_t length, uint32_t mode)
{
    (void)error, (void)key, (void)length, (void)mode;
    return OCIHandleFree(statement, H_STATEMENT);
}

static size_t name_length(const char *at)
{
    return strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$#");
}

int OCIStmtGetBindInfo(void *pointer, void *error, uint32_t size, uint32_t start, int32_t *found, char *names[],
                       uint8_t lengths[], char *indicators[], uint8_t indicator_lengths[], uint8_t duplicates[],
                       void **binds)
{
    (void)error, (void)indicators, (void)indicator_lengths, (void)binds;
    Handle *statement = pointer;
    if (!statement->upper) {
        statement->upper = strdup(statement->sql);
        for (char *at = statement->upper; *at; at++) if (*at >= 'a' && *at <= 'z') *at = (char)(*at - 32);
    }
    uint32_t number = 0, shown = 0;
    for (const char *at = statement->sql; (at = strchr(at, ':')); at++) {
        size_t length = name_length(at + 1);
        number++;
        if (number < start || shown >= size) continue;
        names[shown] = statement->upper + (at + 1 - statement->sql);
        lengths[shown] = (uint8_t)length;
        duplicates[shown] = 0;
        for (const char *before = statement->sql; (before = strchr(before, ':')) && before < at; before++)
            if (name_length(before + 1) == length && strncasecmp(before + 1, at + 1, length) == 0) duplicates[shown] = 1;
        shown++;
    }
    if (number == 0) return NO_DATA;
    /* Below zero: there are more than were shown. */
    *found = number >= start + size ? -(int32_t)number : (int32_t)number;
    return SUCCESS;
}

static int bind(Handle *statement, void **place, Handle *error, char *name, void *buffer, int64_t size, uint16_t type,
                void *indicator, uint32_t *length, uint16_t *code, uint32_t mode)
{
    if (mode & 2) return fail(error, 3115, "unsupported network datatype: it is given piece by piece");
    int at = 0;
    while (at < statement->bind_count && strcasecmp(statement->binds[at].name, name) != 0) at++;
    if (at == statement->bind_count) statement->binds[statement->bind_count++].name = name; else free(name);
    Value *value = &statement->binds[at];
    Value given = {value->name, buffer, size, type, indicator, length, code};
    *value = given;
    *place = make(H_BIND);
    return SUCCESS;
}

int OCIBindByName2(void *statement, void **place, void *error, const char *name, int32_t name_size, void *buffer,
                   int64_t size, uint16_t type, void *indicator, uint32_t *length, uint16_t *code, uint32_t array_max,
                   uint32_t *array_size, uint32_t mode)
{
    (void)array_max, (void)array_size;
    if (*name == ':') { name++; name_size--; }
    char *copy = strndup(name, (size_t)name_size);
    return bind(statement, place, error, copy, buffer, size, type, indicator, length, code, mode);
}

int OCIBindByPos2(void *pointer, void **place, void *error, uint32_t position, void *buffer, int64_t size, uint16_t type,
                  void *indicator, uint32_t *length, uint16_t *code, uint32_t array_max, uint32_t *array_size,
                  uint32_t mode)
{
    (void)array_max, (void)array_size;
    Handle *statement = pointer;
    const char *at = statement->sql;
    for (uint32_t i = 0; at && i < position; i++) at = strchr(i ? at + 1 : at, ':');
    if (!at) return fail(error, 1036, "illegal variable name/number");
    char *copy = strndup(at + 1, name_length(at + 1));
    return bind(statement, place, error, copy, buffer, size, type, indicator, length, code, mode);
}

int OCIDefineByPos2(void *pointer, void **place, void *error, uint32_t position, void *buffer, uint64_t size,
                    uint16_t type, void *indicator, uint32_t *length, uint16_t *code, uint32_t mode)
{
    Handle *statement = pointer;
    if (mode & 2) return fail(error, 3115, "unsupported network datatype: it is taken piece by piece");
    Value given = {NULL, buffer, (int64_t)size, type, indicator, length, code};
    statement->defines[position - 1] = given;
    *place = make(H_DEFINE);
    return SUCCESS;
}

static Value *bound(Handle *statement, const char *name)
{
    for (int i = 0; i < statement->bind_count; i++)
        if (strcasecmp(statement->binds[i].name, name) == 0) return &statement->binds[i];
    return NULL;
}

static void record_execution(Handle *statement)
{
    char *line = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&line, &length);
    char *sql = script_escaped(statement->sql, strlen(statement->sql));
    for (char *at = sql; *at; at++) if (*at == '\001') *at = ':';
    Handle *session = statement->service->session;
    fprintf(file, "EXECUTE\t%s\t%s\t%s\t%s", session->user, session->client, session->action, sql);
    free(sql);
    for (int i = 0; i < statement->bind_count; i++) {
        char *text = value_text(&statement->binds[i]);
        fprintf(file, "\t%s=%s", statement->binds[i].name, text);
        free(text);
    }
    fclose(file);
    script_record(statement->service->server->script, "%s", line);
    free(line);
}

/* What comes out by placeholders. */
static int give_outs(Handle *statement, Handle *error)
{
    Entry *entry = statement->entry;
    for (int i = 0; i < entry->out_count; i++) {
        Value *value = bound(statement, entry->outs[i][0]);
        if (!value) return fail(error, 1036, entry->outs[i][0]);
        int is_null = strcmp(entry->outs[i][1], "~") == 0;
        if (value->indicator) *value->indicator = is_null ? -1 : 0;
        int code = is_null ? 0 : value_put(entry->outs[i][1], value->type, value->buffer, value->size, 0, value->length);
        if (code) return fail(error, code, "PL/SQL: numeric or value error");
        if (value->code) *value->code = 0;
    }
    for (int i = 0; i < entry->cursor_count; i++) {
        Value *value = bound(statement, entry->cursors[i][0]);
        Entry *rows = script_named(statement->entries, entry->cursors[i][1]);
        if (!value || value->type != T_RSET || !rows) return fail(error, 932, "inconsistent datatypes");
        Handle *cursor = *(Handle **)value->buffer;
        cursor->service = statement->service;
        cursor->type = 1;
        cursor->entry = rows;
        if (value->indicator) *value->indicator = 0;
    }
    return SUCCESS;
}

int OCIStmtExecute(void *service_pointer, void *pointer, void *error, uint32_t iterations, uint32_t offset,
                   const void *snapshot_in, void *snapshot_out, uint32_t mode)
{
    (void)iterations, (void)offset, (void)snapshot_in, (void)snapshot_out;
    Handle *service = service_pointer, *statement = pointer;
    Script *script = service->server->script;
    int status = reach(service, error);
    if (status != SUCCESS) return status;
    if (statement->owns_entries) script_free(statement->entries);
    char *sql = strdup(statement->sql);
    for (char *at = sql; *at; at++) if (*at == '\001') *at = ':';
    statement->entries = script_read(script);
    statement->owns_entries = 1;
    statement->next_row = statement->next_result = 0;
    statement->entry = script_find(script, statement->entries, sql, service->session->user);
    record_execution(statement);
    Entry *entry = statement->entry;
    if (!entry) {
        status = strncmp(sql, "alter session", 13) == 0 ? SUCCESS : fail(error, 900, "the script does not know this");
        free(sql);
        return status;
    }
    free(sql);
    if (entry->block || entry->sleep) status = work(service, error, entry->block ? -1 : entry->sleep, entry->deaf);
    if (status != SUCCESS) return status;
    if (entry->lost) {
        service->server->is_lost = 1;
        return fail(error, 3113, "end-of-file on communication channel");
    }
    if (entry->error) return fail(error, entry->error, entry->text);
    status = give_outs(statement, error);
    if (status == SUCCESS && mode & 0x20) script_record(script, "COMMIT");
    if (status == SUCCESS && entry->warning) {
        fail(error, entry->warning, entry->text);
        return SUCCESS_WITH_INFO;
    }
    return status;
}

int OCIStmtGetNextResult(void *pointer, void *error, void **place, uint32_t *type, uint32_t mode)
{
    (void)error, (void)mode;
    Handle *statement = pointer;
    if (!statement->entry || statement->next_result >= statement->entry->result_count) return NO_DATA;
    Handle *cursor = make(H_STATEMENT);
    cursor->service = statement->service;
    cursor->type = 1;
    cursor->entry = script_named(statement->entries, statement->entry->results[statement->next_result++]);
    *place = cursor;
    *type = 1;
    return SUCCESS;
}

/* One value of a row, with {n} as the number of the row. */
static char *field(const char *row, int column, int number)
{
    while (column > 0 && (row = strchr(row, '|'))) { row++; column--; }
    if (!row) return strdup("~");
    size_t length = strcspn(row, "|");
    char *text = strndup(row, length), *at = strstr(text, "{n}");
    if (!at) return text;
    char *counted = malloc(length + 32);
    sprintf(counted, "%.*s%d%s", (int)(at - text), text, number, at + 3);
    free(text);
    return counted;
}

int OCIStmtFetch2(void *pointer, void *error, uint32_t count, uint16_t orientation, int32_t offset, uint32_t mode)
{
    (void)orientation, (void)offset, (void)mode;
    Handle *statement = pointer;
    Entry *entry = statement->entry;
    int status = reach(statement->service, error);
    if (status != SUCCESS) return status;
    int total = entry->row_count * entry->repeat;
    statement->fetched = 0;
    while (statement->fetched < count && statement->next_row < total) {
        const char *row = entry->rows[statement->next_row % entry->row_count];
        statement->next_row++;
        for (int i = 0; i < entry->column_count; i++) {
            Value *value = &statement->defines[i];
            if (!value->buffer) continue;
            char *text = field(row, i, statement->next_row);
            int at = (int)statement->fetched, is_null = strcmp(text, "~") == 0;
            if (value->indicator) value->indicator[at] = is_null ? -1 : 0;
            int code = is_null ? 0 : value_put(text, value->type, value->buffer, value->size, at, value->length);
            free(text);
            if (code) return fail(error, code, "a value does not fit");
            if (value->code) value->code[at] = 0;
        }
        statement->fetched++;
    }
    return statement->fetched < count ? NO_DATA : SUCCESS;
}

int OCIServerRelease2(void *handle, void *error, char *text, uint32_t room, uint8_t kind, uint32_t *version,
                      uint32_t mode)
{
    (void)handle, (void)error, (void)kind, (void)mode;
    if (text) snprintf(text, room, "A script 19.3");
    *version = 19u << 24 | 3u << 16;
    return SUCCESS;
}

int OCIServerRelease(void *handle, void *error, char *text, uint32_t room, uint8_t kind, uint32_t *version)
{
    return OCIServerRelease2(handle, error, text, room, kind, version, 0);
}

/* LOBs: in characters where they have some. */

static uint64_t characters(const char *text, uint64_t size)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < size; i++) count += (text[i] & 0xC0) != 0x80;
    return count;
}

int OCILobGetLength2(void *service, void *error, void *pointer, uint64_t *length)
{
    (void)service, (void)error;
    Handle *lob = pointer;
    /* Which of them has characters the driver knows; those of bytes are marked by value_put or by how they were made. */
    *length = lob->numbers[0] == 1 ? lob->data_size : characters(lob->data ? lob->data : "", lob->data_size);
    return SUCCESS;
}

int OCILobRead2(void *service, void *error, void *pointer, uint64_t *bytes, uint64_t *chars, uint64_t offset, void *buffer,
                uint64_t room, uint8_t piece, void *context, void *callback, uint16_t charset, uint8_t form)
{
    (void)piece, (void)context, (void)callback, (void)charset, (void)form;
    int status = reach(service, error);
    if (status != SUCCESS) return status;
    Handle *lob = pointer;
    uint64_t from = 0, count = 0, seen = 0;
    if (*chars == 0) {
        from = offset - 1;
        count = from < lob->data_size ? lob->data_size - from : 0;
        if (count > *bytes) count = *bytes;
    } else {
        for (; from < lob->data_size && seen < offset - 1; from++) seen += (lob->data[from + 1] & 0xC0) != 0x80;
        for (seen = 0; from + count < lob->data_size && seen < *chars; count++)
            seen += from + count + 1 == lob->data_size || (lob->data[from + count + 1] & 0xC0) != 0x80;
    }
    if (count > room) count = room;
    memcpy(buffer, lob->data + from, count);
    *bytes = count;
    *chars = seen;
    return SUCCESS;
}

int OCILobTrim2(void *service, void *error, void *pointer, uint64_t length)
{
    (void)service, (void)error, (void)length;
    Handle *lob = pointer;
    /* One that was never made is no LOB: the driver makes it then. */
    if (!lob->numbers[1]) return INVALID_HANDLE;
    lob->data_size = 0;
    return SUCCESS;
}

int OCILobCreateTemporary(void *service, void *error, void *pointer, uint16_t charset, uint8_t form, uint8_t type,
                          int cache, uint16_t duration)
{
    (void)charset, (void)form, (void)cache, (void)duration;
    int status = reach(service, error);
    ((Handle *)pointer)->numbers[0] = type == 1;
    ((Handle *)pointer)->numbers[1] = 1;
    return status;
}

int OCILobWrite2(void *service, void *error, void *pointer, uint64_t *bytes, uint64_t *chars, uint64_t offset, void *buffer,
                 uint64_t size, uint8_t piece, void *context, void *callback, uint16_t charset, uint8_t form)
{
    (void)chars, (void)offset, (void)piece, (void)context, (void)callback, (void)charset, (void)form;
    int status = reach(service, error);
    if (status != SUCCESS) return status;
    Handle *lob = pointer;
    free(lob->data);
    lob->data = malloc(size + 1);
    memcpy(lob->data, buffer, size);
    lob->data_size = size;
    *bytes = size;
    return SUCCESS;
}

int OCILobGetChunkSize(void *service, void *error, void *lob, uint32_t *size)
{
    (void)service, (void)error, (void)lob;
    *size = 8132;
    return SUCCESS;
}

int OCILobIsTemporary(void *environment, void *error, void *lob, int *is_temporary)
{
    (void)environment, (void)error;
    *is_temporary = ((Handle *)lob)->numbers[1];
    return SUCCESS;
}

int OCILobFreeTemporary(void *service, void *error, void *lob)
{
    (void)service, (void)error;
    ((Handle *)lob)->numbers[1] = 0;
    return SUCCESS;
}

int OCILobLocatorAssign(void *service, void *error, const void *from, void **to)
{
    (void)service, (void)error;
    const Handle *source = from;
    Handle *target = *to;
    free(target->data);
    target->data = malloc(source->data_size + 1);
    memcpy(target->data, source->data ? source->data : "", source->data_size);
    target->data_size = source->data_size;
    memcpy(target->numbers, source->numbers, sizeof source->numbers);
    return SUCCESS;
}

/* Times: the numbers of a descriptor are what scripts write, see values.c. */

int OCIDateTimeConstruct(void *handle, void *error, void *pointer, int16_t year, uint8_t month, uint8_t day, uint8_t hour,
                         uint8_t minute, uint8_t second, uint32_t fraction, const char *zone, size_t zone_length)
{
    (void)handle, (void)error;
    int *numbers = ((Handle *)pointer)->numbers, hours = 0, minutes = 0;
    int all[] = {year, month, day, hour, minute, second, (int)fraction, 0};
    if (zone && zone_length >= 6) {
        sscanf(zone + 1, "%2d:%2d", &hours, &minutes);
        all[7] = (hours * 60 + minutes) * (*zone == '-' ? -1 : 1);
    }
    memcpy(numbers, all, sizeof all);
    return SUCCESS;
}

int OCIDateTimeGetDate(void *handle, void *error, const void *pointer, int16_t *year, uint8_t *month, uint8_t *day)
{
    (void)handle, (void)error;
    const int *numbers = ((const Handle *)pointer)->numbers;
    *year = (int16_t)numbers[0];
    *month = (uint8_t)numbers[1];
    *day = (uint8_t)numbers[2];
    return SUCCESS;
}

int OCIDateTimeGetTime(void *handle, void *error, void *pointer, uint8_t *hour, uint8_t *minute, uint8_t *second,
                       uint32_t *fraction)
{
    (void)handle, (void)error;
    const int *numbers = ((Handle *)pointer)->numbers;
    *hour = (uint8_t)numbers[3];
    *minute = (uint8_t)numbers[4];
    *second = (uint8_t)numbers[5];
    *fraction = (uint32_t)numbers[6];
    return SUCCESS;
}

int OCIDateTimeGetTimeZoneOffset(void *handle, void *error, const void *pointer, int8_t *hours, int8_t *minutes)
{
    (void)handle, (void)error;
    int offset = ((const Handle *)pointer)->numbers[7];
    *hours = (int8_t)(offset / 60);
    *minutes = (int8_t)(offset % 60);
    return SUCCESS;
}

int OCIIntervalGetDaySecond(void *handle, void *error, int32_t *day, int32_t *hour, int32_t *minute, int32_t *second,
                            int32_t *fraction, const void *pointer)
{
    (void)handle, (void)error;
    const int *numbers = ((const Handle *)pointer)->numbers;
    *day = numbers[0], *hour = numbers[1], *minute = numbers[2], *second = numbers[3], *fraction = numbers[4];
    return SUCCESS;
}

int OCIIntervalSetDaySecond(void *handle, void *error, int32_t day, int32_t hour, int32_t minute, int32_t second,
                            int32_t fraction, void *pointer)
{
    (void)handle, (void)error;
    int all[] = {day, hour, minute, second, fraction};
    memcpy(((Handle *)pointer)->numbers, all, sizeof all);
    return SUCCESS;
}

int OCIIntervalGetYearMonth(void *handle, void *error, int32_t *year, int32_t *month, const void *pointer)
{
    (void)handle, (void)error;
    *year = ((const Handle *)pointer)->numbers[0];
    *month = ((const Handle *)pointer)->numbers[1];
    return SUCCESS;
}

int OCIIntervalSetYearMonth(void *handle, void *error, int32_t year, int32_t month, void *pointer)
{
    (void)handle, (void)error;
    int all[] = {year, month, 0, 0, 0};
    memcpy(((Handle *)pointer)->numbers, all, sizeof all);
    return SUCCESS;
}

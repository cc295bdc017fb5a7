/* What the parts of the client library share: handles, scripts, values. */
#ifndef CLIENT_H
#define CLIENT_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum { SUCCESS = 0, SUCCESS_WITH_INFO = 1, ERROR = -1, INVALID_HANDLE = -2, NO_DATA = 100 };

/* Kinds of handles and descriptors, as OCI numbers them; COLUMN is our own. */
enum {
    H_ENV = 1, H_ERROR = 2, H_SERVICE = 3, H_STATEMENT = 4, H_BIND = 5, H_DEFINE = 6, H_SERVER = 8, H_SESSION = 9,
    D_LOB = 50, D_PARAM = 53, D_INTERVAL_YM = 62, D_INTERVAL_DS = 63, D_TIMESTAMP = 68, D_TIMESTAMP_TZ = 69,
    D_TIMESTAMP_LTZ = 70, COLUMN = 1000
};

/* Types of data. */
enum {
    T_CHR = 1, T_NUM = 2, T_INT = 3, T_VNU = 6, T_DAT = 12, T_FLOAT = 21, T_DOUBLE = 22, T_BIN = 23, T_UIN = 68,
    T_AFC = 96, T_IFLOAT = 100, T_IDOUBLE = 101, T_CLOB = 112, T_BLOB = 113, T_RSET = 116, T_JSON = 119, T_ODT = 156,
    T_TIMESTAMP = 187, T_TIMESTAMP_TZ = 188, T_INTERVAL_YM = 189, T_INTERVAL_DS = 190, T_TIMESTAMP_LTZ = 232,
    T_BOL = 252
};

typedef struct Column {
    uint32_t kind;
    char name[128];
    uint16_t type;
    uint8_t form;
    int16_t precision;
    int8_t scale;
    uint16_t size;
} Column;

/* What a script says of the statements that it is about. */
typedef struct Entry {
    char *name;
    char *match[8];
    char *user;
    int match_count, times, error, warning, block, deaf, sleep, lost;
    char *text;
    Column columns[32];
    int column_count;
    char **rows;
    int row_count;
    int repeat;
    uint64_t count;
    char *outs[32][2];
    int out_count;
    char *cursors[8][2];
    int cursor_count;
    char *results[8];
    int result_count;
    struct Entry *next;
} Entry;

/* Where a session goes: its connect string is the path of the script. */
typedef struct Script {
    char *path;
    struct { char name[128]; int count; } used[256];
    int used_count;
    struct Script *next;
} Script;

typedef struct Value {
    char *name;
    void *buffer;
    int64_t size;
    uint16_t type;
    int16_t *indicator;
    uint32_t *length;
    uint16_t *code;
} Value;

typedef struct Handle {
    uint32_t kind;
    /* error */
    int code;
    char message[3072];
    /* server */
    Script *script;
    int is_lost;
    /* session */
    char user[128], module[128], action[128], client[128], class[128];
    /* service */
    struct Handle *server, *session;
    uint32_t timeout;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int broken;
    /* statement */
    struct Handle *service;
    char *sql, *upper;
    uint16_t type;
    Value binds[256];
    int bind_count;
    Value defines[32];
    Entry *entries, *entry;
    int next_row, next_result, owns_entries;
    uint32_t fetched;
    /* descriptors */
    char *data;
    uint64_t data_size;
    int numbers[8];
} Handle;

/* script.c */
Script *script_at(const char *path, int length);
Entry *script_read(Script *script);
void script_free(Entry *entries);
Entry *script_find(Script *script, Entry *entries, const char *sql, const char *user);
Entry *script_named(Entry *entries, const char *name);
void script_record(Script *script, const char *format, ...);
char *script_escaped(const char *text, size_t length);

/* values.c */
int value_put(const char *text, uint16_t type, void *buffer, int64_t size, int at, uint32_t *length);
char *value_text(const Value *value);

#endif

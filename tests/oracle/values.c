/* Values between the texts of scripts and the buffers of the driver, in Oracle's own formats. */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits to base 100 behind an exponent; those of negative numbers are turned around, and end with 102. */
static void number_encode(const char *text, unsigned char *out)
{
    int is_negative = *text == '-', point = -1, count = 0, exponent = 0;
    char digits[256];
    if (*text == '-' || *text == '+') text++;
    for (; *text && *text != 'e' && *text != 'E'; text++) {
        if (*text == '.') point = count;
        else if (count < 200) digits[count++] = (char)(*text - '0');
    }
    if (*text) exponent = atoi(text + 1);
    if (point < 0) point = count;
    point += exponent;
    int first = 0;
    while (first < count && digits[first] == 0) { first++; point--; }
    while (count > first && digits[count - 1] == 0) count--;
    if (first == count) { out[0] = 1; out[1] = 0x80; return; }
    /* Pairs begin at the point. */
    unsigned char pairs[128];
    int pair_count = 0, at = first;
    int is_odd = ((point % 2) + 2) % 2;
    if (is_odd) { pairs[pair_count++] = (unsigned char)digits[at++]; point++; }
    while (at < count && pair_count < 20) {
        int high = digits[at], low = at + 1 < count ? digits[at + 1] : 0;
        pairs[pair_count++] = (unsigned char)(high * 10 + low);
        at += 2;
    }
    unsigned char power = (unsigned char)(point / 2 - 1 + 193);
    out[1] = is_negative ? (unsigned char)~power : power;
    for (int i = 0; i < pair_count; i++)
        out[2 + i] = (unsigned char)(is_negative ? 101 - pairs[i] : pairs[i] + 1);
    int length = 1 + pair_count;
    if (is_negative && pair_count < 20) out[1 + length++] = 102;
    out[0] = (unsigned char)length;
}

static void number_decode(const unsigned char *in, char *text)
{
    int length = in[0] - 1, is_negative = !(in[1] & 0x80);
    if (length <= 0) { strcpy(text, "0"); return; }
    int power = (unsigned char)(is_negative ? ~in[1] : in[1]) - 193;
    const unsigned char *mantissa = in + 2;
    if (is_negative && mantissa[length - 1] == 102) length--;
    char digits[64];
    int count = 0, point = power * 2 + 2;
    for (int i = 0; i < length; i++) {
        int pair = is_negative ? 101 - mantissa[i] : mantissa[i] - 1;
        digits[count++] = (char)('0' + pair / 10);
        digits[count++] = (char)('0' + pair % 10);
    }
    char *to = text;
    if (is_negative) *to++ = '-';
    int from = 0;
    while (from < point - 1 && from < count - 1 && digits[from] == '0') from++;
    while (count > point && count > from + 1 && digits[count - 1] == '0') count--;
    if (point <= 0) {
        *to++ = '0';
        *to++ = '.';
        for (int i = point; i < 0; i++) *to++ = '0';
        from = 0;
        point = -1;
    }
    for (int i = from; i < count || i < point; i++) {
        if (i == point) *to++ = '.';
        *to++ = i < count ? digits[i] : '0';
    }
    *to = 0;
}

static int hex_decode(const char *text, unsigned char *out, int64_t most)
{
    int count = 0;
    unsigned byte;
    for (; text[0] && text[1] && count < most; text += 2) {
        if (sscanf(text, "%2x", &byte) != 1) break;
        out[count++] = (unsigned char)byte;
    }
    return count;
}

static char *hex_encode(const unsigned char *bytes, size_t size)
{
    char *text = calloc(1, size * 2 + 1);
    for (size_t i = 0; i < size; i++) sprintf(text + 2 * i, "%02x", bytes[i]);
    return text;
}

/* Year to second, nanoseconds, offset in minutes. */
static void moment_decode(const char *text, int *numbers)
{
    memset(numbers, 0, 8 * sizeof(int));
    int read = 0;
    sscanf(text, "%d-%d-%dT%d:%d:%d%n", numbers, numbers + 1, numbers + 2, numbers + 3, numbers + 4, numbers + 5, &read);
    text += read;
    if (*text == '.') {
        char digits[10] = "000000000";
        for (int i = 0; i < 9 && text[1 + i] >= '0' && text[1 + i] <= '9'; i++) digits[i] = text[1 + i];
        numbers[6] = atoi(digits);
        text += 1;
        while (*text >= '0' && *text <= '9') text++;
    }
    int hours = 0, minutes = 0;
    if (*text == '+' || *text == '-') {
        sscanf(text + 1, "%d:%d", &hours, &minutes);
        numbers[7] = (hours * 60 + minutes) * (*text == '-' ? -1 : 1);
    }
}

/* Writes a text as a value of this type; anything but 0 is the number of an error. */
int value_put(const char *text, uint16_t type, void *buffer, int64_t size, int at, uint32_t *length)
{
    char *place = (char *)buffer + size * at;
    Handle *descriptor;
    int numbers[8];
    switch (type) {
        case T_CHR: case T_AFC: {
            size_t count = strlen(text);
            if ((int64_t)count > size) return 6502;
            memcpy(place, text, count);
            if (length) length[at] = (uint32_t)count;
            return 0;
        }
        case T_VNU: number_encode(text, (unsigned char *)place); return 0;
        case T_INT: case T_UIN: { int64_t number = atoll(text); memcpy(place, &number, sizeof number); return 0; }
        case T_FLOAT: { float number = strtof(text, NULL); memcpy(place, &number, sizeof number); return 0; }
        case T_DOUBLE: { double number = strtod(text, NULL); memcpy(place, &number, sizeof number); return 0; }
        case T_BIN: {
            int count = hex_decode(text, (unsigned char *)place, size);
            if (length) length[at] = (uint32_t)count;
            return 0;
        }
        case T_BOL: { int truth = strcmp(text, "true") == 0; memcpy(place, &truth, sizeof truth); return 0; }
        case T_ODT: {
            moment_decode(text, numbers);
            int16_t year = (int16_t)numbers[0];
            memcpy(place, &year, 2);
            for (int i = 1; i < 6; i++) place[1 + i] = (char)numbers[i];
            return 0;
        }
        case T_TIMESTAMP: case T_TIMESTAMP_TZ: case T_TIMESTAMP_LTZ:
            descriptor = ((Handle **)buffer)[at];
            moment_decode(text, descriptor->numbers);
            return 0;
        case T_INTERVAL_DS: case T_INTERVAL_YM: {
            int *to = ((Handle **)buffer)[at]->numbers;
            sscanf(text, "%d %d %d %d %d", to, to + 1, to + 2, to + 3, to + 4);
            return 0;
        }
        case T_CLOB: case T_BLOB: {
            descriptor = ((Handle **)buffer)[at];
            free(descriptor->data);
            size_t count = strlen(text);
            descriptor->data = malloc(count + 1);
            if (type == T_BLOB) count = (size_t)hex_decode(text, (unsigned char *)descriptor->data, (int64_t)count);
            else memcpy(descriptor->data, text, count);
            descriptor->data_size = count;
            descriptor->numbers[0] = type == T_BLOB;
            return 0;
        }
        default: return 932;
    }
}

/* What was bound, as text; whoever asks frees it. */
char *value_text(const Value *value)
{
    char text[256];
    const char *place = value->buffer;
    Handle *descriptor = NULL;
    if (!place || (value->indicator && *value->indicator == -1)) return strdup("NULL");
    if (value->type == T_CLOB || value->type == T_BLOB || (value->type >= T_TIMESTAMP && value->type <= T_INTERVAL_DS)
        || value->type == T_TIMESTAMP_LTZ)
        descriptor = *(Handle *const *)value->buffer;
    switch (value->type) {
        case T_CHR: case T_AFC: return script_escaped(place, value->length ? *value->length : (size_t)value->size);
        case T_BIN: return hex_encode((const unsigned char *)place, value->length ? *value->length : (size_t)value->size);
        case T_VNU: number_decode((const unsigned char *)place, text); break;
        case T_INT: case T_UIN: { int64_t number; memcpy(&number, place, 8); sprintf(text, "%lld", (long long)number); break; }
        case T_DOUBLE: { double number; memcpy(&number, place, 8); sprintf(text, "%.17g", number); break; }
        case T_BOL: { int truth; memcpy(&truth, place, 4); strcpy(text, truth ? "true" : "false"); break; }
        case T_ODT: {
            int16_t year;
            memcpy(&year, place, 2);
            sprintf(text, "%04d-%02d-%02dT%02d:%02d:%02d", year, place[2], place[3], place[4], place[5], place[6]);
            break;
        }
        case T_TIMESTAMP: case T_TIMESTAMP_TZ: case T_TIMESTAMP_LTZ: {
            const int *n = descriptor->numbers;
            sprintf(text, "%04d-%02d-%02dT%02d:%02d:%02d.%09d%+d", n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]);
            break;
        }
        case T_INTERVAL_DS: case T_INTERVAL_YM: {
            const int *n = descriptor->numbers;
            sprintf(text, "%d %d %d %d %d", n[0], n[1], n[2], n[3], n[4]);
            break;
        }
        case T_CLOB: return script_escaped(descriptor->data ? descriptor->data : "", descriptor->data_size);
        case T_BLOB: return hex_encode((const unsigned char *)descriptor->data, descriptor->data_size);
        case T_RSET: return strdup("cursor");
        default: sprintf(text, "type %d", value->type);
    }
    return strdup(text);
}

/* What the loads share: the clock, the end, and the content that every reply is compared with. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum {
    HEAD = 16,             /* bytes: number and client */
    OFFSETS = 4096,        /* so many different contents follow it */
    PATTERN = (1 << 20) + OFFSETS,
};

static char pattern[PATTERN];

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline void make_pattern(void)
{
    uint64_t word = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < PATTERN; i++) {
        word = word * 6364136223846793005u + 1442695040888963407u;
        pattern[i] = (char)(word >> 56);
    }
}

/* What follows the head of a message: a reply that went astray, or is another's, is seen. */
static inline const char *content(uint64_t client, uint64_t number)
{
    return pattern + (number * 2654435761u + client * 40503u) % OFFSETS;
}

static inline void write_head(char *at, uint64_t client, uint64_t number)
{
    uint64_t words[2] = {number, client << 32 | 0x6f686365};
    memcpy(at, words, HEAD);
}

static inline void write_message(char *at, uint64_t client, uint64_t number, size_t size)
{
    write_head(at, client, number);
    memcpy(at + HEAD, content(client, number), size - HEAD);
}

/* A file descriptor for each client: root may raise the limit, others have what they have. */
static inline void raise_file_limit(void)
{
    struct rlimit files = {1 << 18, 1 << 18};
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* [ADDRESS:]PORT; without an address it is 127.0.0.1. */
static inline struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *colon = strchr(text, ':');
    char address[INET_ADDRSTRLEN] = "";
    if (colon && (size_t)(colon - text) < sizeof address)
        memcpy(address, text, (size_t)(colon - text));
    if (colon && inet_pton(AF_INET, address, &found.sin_addr) != 1)
        die(text);
    found.sin_port = htons((unsigned short)atoi(colon ? colon + 1 : text));
    return found;
}

/* The value of NAME=VALUE among the arguments, or what it is without. */
static inline double setting(int argc, char **argv, const char *name, double otherwise)
{
    size_t length = strlen(name);
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], name, length) == 0 && argv[i][length] == '=')
            return atof(argv[i] + length + 1);
    return otherwise;
}

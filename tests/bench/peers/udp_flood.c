/* A flood: frames that are ready, sent as fast as the device takes them, or at a rate. Nobody looks at what comes back.
 *
 * Usage: udp_flood INTERFACE DESTINATION_MAC ADDRESS:PORT NAME=VALUE...      prints one JSON object
 *
 *   seconds=1      how long it sends
 *   rate=0         frames a second, kept over each millisecond; 0: as fast as it goes
 *   port=0         the source port of all of them; 0: each of `ports` in turn, from 20000
 *   ports=16384
 *   size=64        bytes in a datagram
 *
 * All are from one address beside that of the interface: ADDRESS + 100. They pass by the qdisc (PACKET_QDISC_BYPASS),
 * and on a veth the other end receives them in the time of this process.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <sys/socket.h>

enum {
    VECTOR = 64,
    FIRST_PORT = 20000,
    BEYOND = 100,          /* the source is so many addresses behind the destination */
    SLOT = 2048,
};

struct frame {
    struct ethhdr link;
    struct iphdr network;
    struct udphdr transport;
    char payload[SLOT];
} __attribute__((packed));

static struct frame frames[VECTOR];
static struct iovec vectors[VECTOR];
static struct mmsghdr messages[VECTOR];

static uint16_t checksum(const void *at, size_t length)
{
    uint32_t sum = 0;
    const uint16_t *words = at;
    for (size_t i = 0; i < length / 2; i++)
        sum += words[i];
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)~(sum + (sum >> 16));
}

static int open_interface(const char *name)
{
    int on = 1, fd = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll here = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(name)};
    if (fd < 0 || here.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&here, sizeof here) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) != 0)
        die(name);
    return fd;
}

static void prepare(const char *mac, struct sockaddr_in to, size_t size)
{
    unsigned octets[ETH_ALEN];
    if (sscanf(mac, "%x:%x:%x:%x:%x:%x", octets, octets + 1, octets + 2, octets + 3, octets + 4, octets + 5) != ETH_ALEN)
        die(mac);
    for (int i = 0; i < VECTOR; i++) {
        struct frame *f = &frames[i];
        for (int j = 0; j < ETH_ALEN; j++)
            f->link.h_dest[j] = (unsigned char)octets[j];
        f->link.h_source[0] = 2;
        f->link.h_proto = htons(ETH_P_IP);
        f->network = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP};
        f->network.tot_len = htons((uint16_t)(sizeof f->network + sizeof f->transport + size));
        f->network.saddr = htonl(ntohl(to.sin_addr.s_addr) + BEYOND);
        f->network.daddr = to.sin_addr.s_addr;
        f->network.check = checksum(&f->network, sizeof f->network);
        f->transport = (struct udphdr){.dest = to.sin_port, .len = htons((uint16_t)(sizeof f->transport + size))};
        vectors[i] = (struct iovec){f, sizeof f->link + sizeof f->network + sizeof f->transport + size};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
}

int main(int argc, char **argv)
{
    uint64_t sent = 0, number = 0;
    if (argc < 4)
        return 2;
    int fd = open_interface(argv[1]);
    int port = (int)setting(argc, argv, "port", 0), ports = (int)setting(argc, argv, "ports", 16384);
    double rate = setting(argc, argv, "rate", 0);
    prepare(argv[2], parse_address(argv[3]), (size_t)setting(argc, argv, "size", 64));

    int64_t began = now_ns(), now = began, until = began + (int64_t)(setting(argc, argv, "seconds", 1) * 1e9);
    for (; now < until; now = now_ns()) {
        if (rate > 0 && (double)sent > rate * (double)(now - began) / 1e9)
            continue;
        for (int i = 0; i < VECTOR; i++, number++) {
            uint64_t identity = number; /* no two frames are alike: those would be taken for a loop */
            frames[i].transport.source = htons((uint16_t)(port ? port : FIRST_PORT + (int)(number % (uint64_t)ports)));
            memcpy(frames[i].payload, &identity, sizeof identity);
        }
        int accepted = sendmmsg(fd, messages, VECTOR, 0);
        if (accepted > 0)
            sent += (uint64_t)accepted;
    }
    printf("{\"sent\": %llu, \"elapsed_ns\": %lld}\n", (unsigned long long)sent, (long long)(now - began));
    return 0;
}

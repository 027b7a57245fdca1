/* A DPDK application that sleeps until there is something to do: it sends every UDP datagram back to where it came from, and
 * uses no processor while nobody sends. Nothing in it is particular to kopi.
 *
 *   sleeper EAL-ARGUMENTS -- [poll]
 *
 * It waits with rte_epoll_wait, or, with `poll`, with poll(2) on the file descriptors of its queues, as an application does
 * that has other descriptors to wait for. SIGINT or SIGTERM ends it. */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_udp.h>

#define PORT 0
#define QUEUE 0
#define BURST 32
#define BUFFERS 4095
#define CACHE 256
#define DESCRIPTORS 512
/* Empty looks into the queue before it goes to sleep: a frame that comes soon after another is not worth a sleep. */
#define LOOKS 100
/* Longest sleep, in milliseconds, after which it looks whether it is to end. */
#define NAP 1000

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void)number;
    ended = 1;
}

static void check(int result, const char *what)
{
    if (result < 0)
        rte_exit(EXIT_FAILURE, "%s: %s\n", what, rte_strerror(-result));
}

/* One queue in each direction, with an interrupt for received frames. */
static void start_port(struct rte_mempool *pool)
{
    struct rte_eth_conf conf;
    int node = rte_eth_dev_socket_id(PORT);

    memset(&conf, 0, sizeof(conf));
    conf.intr_conf.rxq = 1;
    check(rte_eth_dev_configure(PORT, 1, 1, &conf), "rte_eth_dev_configure");
    check(rte_eth_rx_queue_setup(PORT, QUEUE, DESCRIPTORS, node, NULL, pool), "rte_eth_rx_queue_setup");
    check(rte_eth_tx_queue_setup(PORT, QUEUE, DESCRIPTORS, node, NULL), "rte_eth_tx_queue_setup");
    check(rte_eth_dev_start(PORT), "rte_eth_dev_start");
}

static void swap(void *a, void *b, size_t size)
{
    char kept[16];

    memcpy(kept, a, size);
    memcpy(a, b, size);
    memcpy(b, kept, size);
}

/* Turns a UDP datagram over IPv4 round, and tells whether it was one. No checksum changes by it. */
static int turn_round(struct rte_mbuf *frame)
{
    struct rte_ether_hdr *ether = rte_pktmbuf_mtod(frame, struct rte_ether_hdr *);
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ether + 1);
    struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);

    if (rte_pktmbuf_data_len(frame) < sizeof(*ether) + sizeof(*ip) + sizeof(*udp))
        return 0;
    if (ether->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) || ip->version_ihl != RTE_IPV4_VHL_DEF ||
        ip->next_proto_id != IPPROTO_UDP)
        return 0;
    swap(&ether->src_addr, &ether->dst_addr, sizeof(ether->src_addr));
    swap(&ip->src_addr, &ip->dst_addr, sizeof(ip->src_addr));
    swap(&udp->src_port, &udp->dst_port, sizeof(udp->src_port));
    return 1;
}

/* Answers what is in the queue, and returns how many frames there were. */
static uint16_t serve(uint64_t *echoed)
{
    struct rte_mbuf *frames[BURST];
    uint16_t answers = 0, sent, got = rte_eth_rx_burst(PORT, QUEUE, frames, BURST);

    for (uint16_t i = 0; i < got; i++) {
        if (turn_round(frames[i]))
            frames[answers++] = frames[i];
        else
            rte_pktmbuf_free(frames[i]);
    }
    sent = rte_eth_tx_burst(PORT, QUEUE, frames, answers);
    for (uint16_t i = sent; i < answers; i++)
        rte_pktmbuf_free(frames[i]);
    *echoed += sent;
    return got;
}

/* Waits for the queue's interrupt. An event that is there already counts. */
static int wait_epoll(void)
{
    struct rte_epoll_event event;

    return rte_epoll_wait(RTE_EPOLL_PER_THREAD, &event, 1, NAP);
}

/* The same for those who bring their own loop. The count has to be taken out, or the next poll returns at once. */
static int wait_poll(int fd)
{
    struct pollfd polled = { .fd = fd, .events = POLLIN };
    uint64_t count;
    int ready = poll(&polled, 1, NAP);

    if (ready > 0 && read(fd, &count, sizeof(count)) < 0)
        return 0;
    return ready;
}

int main(int argc, char **argv)
{
    int used = rte_eal_init(argc, argv), fd = -1;
    uint64_t echoed = 0, sleeps = 0, wakes = 0;
    unsigned int looks = 0;
    struct rte_mempool *pool;

    check(used, "rte_eal_init");
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (rte_eth_dev_count_avail() == 0)
        rte_exit(EXIT_FAILURE, "no port\n");
    pool = rte_pktmbuf_pool_create("frames", BUFFERS, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, rte_socket_id());
    if (pool == NULL)
        rte_exit(EXIT_FAILURE, "no memory for packet buffers\n");
    start_port(pool);
    if (argc > used + 1 && strcmp(argv[used + 1], "poll") == 0) {
        fd = rte_eth_dev_rx_intr_ctl_q_get_fd(PORT, QUEUE);
        check(fd, "rte_eth_dev_rx_intr_ctl_q_get_fd");
    } else {
        check(rte_eth_dev_rx_intr_ctl_q(PORT, QUEUE, RTE_EPOLL_PER_THREAD, RTE_INTR_EVENT_ADD, NULL),
              "rte_eth_dev_rx_intr_ctl_q");
    }
    printf("ready\n");
    fflush(stdout);
    while (!ended) {
        if (serve(&echoed) > 0) {
            looks = 0;
            continue;
        }
        if (++looks < LOOKS)
            continue;
        /* From here on a frame fires the interrupt, and so does one that came since the last look. */
        check(rte_eth_dev_rx_intr_enable(PORT, QUEUE), "rte_eth_dev_rx_intr_enable");
        sleeps++;
        if ((fd < 0 ? wait_epoll() : wait_poll(fd)) > 0)
            wakes++;
        check(rte_eth_dev_rx_intr_disable(PORT, QUEUE), "rte_eth_dev_rx_intr_disable");
    }
    printf("echoed %" PRIu64 " datagrams, slept %" PRIu64 " times, was woken %" PRIu64 " times\n", echoed, sleeps, wakes);
    rte_eth_dev_stop(PORT);
    rte_eth_dev_close(PORT);
    return rte_eal_cleanup();
}

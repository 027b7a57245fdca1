/* DPDK's inline functions and macros as ordinary functions, which Rust can call. Each does what the DPDK function of
 * the same name does, without more checks. The cost is one call; the burst functions pay it once per burst. */
#ifndef KOPI_INLINES_H
#define KOPI_INLINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* What struct rte_eth_link holds; its own fields lie in an anonymous union from DPDK 23.11 on. */
struct kopi_link {
    uint32_t speed_mbps;
    bool full_duplex;
    bool autoneg;
    bool up;
};

/* Burst functions, packet buffers, pools. */
uint16_t kopi_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t kopi_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
/* The descriptor of a queue's receive interrupt, or -1, without DPDK's word about it in the log. */
int kopi_eth_rx_intr_fd(uint16_t port, uint16_t queue);
int kopi_eth_rx_queue_count(uint16_t port, uint16_t queue);

struct rte_mbuf *kopi_pktmbuf_alloc(struct rte_mempool *pool);
int kopi_mempool_get_bulk(struct rte_mempool *pool, void **objects, unsigned int n);
void kopi_pktmbuf_return_bulk(struct rte_mbuf **mbufs, unsigned int n);
void kopi_pktmbuf_free(struct rte_mbuf *mbuf);
int kopi_pktmbuf_linearize(struct rte_mbuf *mbuf);

/* EAL. kopi_errno is the rte_errno of this thread. */
int kopi_errno(void);
unsigned int kopi_lcore_id(void);
uint64_t kopi_rdtsc(void);

/* Never waits for the device. */
int kopi_eth_link_get(uint16_t port, struct kopi_link *link);

#endif

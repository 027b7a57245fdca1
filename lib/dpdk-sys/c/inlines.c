/* The bodies of inlines.h. Compiled with the flags of `pkg-config --cflags libdpdk`, as the inline functions demand. */
#include <string.h>

#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "inlines.h"

uint16_t kopi_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
    const struct rte_eth_fp_ops *ops = &rte_eth_fp_ops[port];

    /* Without callbacks nothing is left to do behind the driver's function: a jump, and no register to be saved. */
    if (likely(ops->rxq.clbk[queue] == NULL))
        return ops->rx_pkt_burst(ops->rxq.data[queue], mbufs, n);
    return rte_eth_rx_burst(port, queue, mbufs, n);
}

uint16_t kopi_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
    const struct rte_eth_fp_ops *ops = &rte_eth_fp_ops[port];

    /* As above. */
    if (likely(ops->txq.clbk[queue] == NULL))
        return ops->tx_pkt_burst(ops->txq.data[queue], mbufs, n);
    return rte_eth_tx_burst(port, queue, mbufs, n);
}

int kopi_eth_rx_intr_fd(uint16_t port, uint16_t queue)
{
    /* The number that ethdev's log has already. */
    int log = rte_log_register("lib.ethdev");
    int level = log < 0 ? -1 : rte_log_get_level(log);

    /* A port without interrupts is an error to ethdev, and nothing out of the ordinary here. */
    if (level >= 0)
        rte_log_set_level(log, RTE_LOG_EMERG);
    int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(port, queue);
    if (level >= 0)
        rte_log_set_level(log, level);
    return fd;
}

int kopi_eth_rx_queue_count(uint16_t port, uint16_t queue)
{
    return rte_eth_rx_queue_count(port, queue);
}

struct rte_mbuf *kopi_pktmbuf_alloc(struct rte_mempool *pool)
{
    return rte_pktmbuf_alloc(pool);
}

int kopi_mempool_get_bulk(struct rte_mempool *pool, void **objects, unsigned int n)
{
    return rte_mempool_get_bulk(pool, objects, n);
}

/* Plain buffers of one pool go back at once, without a look at their second cache line; any others one by one. */
void kopi_pktmbuf_return_bulk(struct rte_mbuf **mbufs, unsigned int n)
{
    if (n == 0)
        return;
    struct rte_mempool *pool = mbufs[0]->pool;
    for (unsigned int i = 0; i < n; i++) {
        const struct rte_mbuf *m = mbufs[i];
        if (m->pool != pool || m->nb_segs != 1 || !RTE_MBUF_DIRECT(m) || rte_mbuf_refcnt_read(m) != 1) {
            rte_pktmbuf_free_bulk(mbufs, n);
            return;
        }
    }
    rte_mempool_put_bulk(pool, (void *const *)mbufs, n);
}

void kopi_pktmbuf_free(struct rte_mbuf *mbuf)
{
    rte_pktmbuf_free(mbuf);
}

int kopi_pktmbuf_linearize(struct rte_mbuf *mbuf)
{
    return rte_pktmbuf_linearize(mbuf);
}

int kopi_errno(void)
{
    return rte_errno;
}

unsigned int kopi_lcore_id(void)
{
    return rte_lcore_id();
}

uint64_t kopi_rdtsc(void)
{
    return rte_rdtsc();
}

int kopi_eth_link_get(uint16_t port, struct kopi_link *link)
{
    struct rte_eth_link raw;
    memset(&raw, 0, sizeof(raw));
    int ret = rte_eth_link_get_nowait(port, &raw);
    link->speed_mbps = raw.link_speed;
    link->full_duplex = raw.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    link->autoneg = raw.link_autoneg == RTE_ETH_LINK_AUTONEG;
    link->up = raw.link_status == RTE_ETH_LINK_UP;
    return ret;
}

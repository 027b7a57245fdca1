/* The bodies of inlines.h. Compiled with the flags of `pkg-config --cflags libdpdk`, as the inline functions demand. */
/* DPDK hides the processor sets of lcores without it. */
#define _GNU_SOURCE

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>

#include <bus_vdev_driver.h>
#include <ethdev_driver.h>
#include <ethdev_vdev.h>

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
    const struct rte_intr_handle *handle = rte_eth_devices[port].intr_handle;

    if (handle == NULL || rte_intr_nb_efd_get(handle) <= (int)queue || rte_intr_vec_list_index_get(handle, queue) < 0)
        return -1;
    return rte_eth_dev_rx_intr_ctl_q_get_fd(port, queue);
}

int kopi_eth_rx_queue_count(uint16_t port, uint16_t queue)
{
    return rte_eth_rx_queue_count(port, queue);
}

int kopi_eth_rx_descriptor_status(uint16_t port, uint16_t queue, uint16_t offset)
{
    return rte_eth_rx_descriptor_status(port, queue, offset);
}

int kopi_eth_tx_descriptor_status(uint16_t port, uint16_t queue, uint16_t offset)
{
    return rte_eth_tx_descriptor_status(port, queue, offset);
}

struct rte_mbuf *kopi_pktmbuf_alloc(struct rte_mempool *pool)
{
    return rte_pktmbuf_alloc(pool);
}

int kopi_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n)
{
    return rte_pktmbuf_alloc_bulk(pool, mbufs, n);
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

struct rte_mbuf *kopi_mbuf_raw_alloc(struct rte_mempool *pool)
{
    return rte_mbuf_raw_alloc(pool);
}

void kopi_mbuf_raw_free(struct rte_mbuf *mbuf)
{
    rte_mbuf_raw_free(mbuf);
}

void kopi_pktmbuf_free(struct rte_mbuf *mbuf)
{
    rte_pktmbuf_free(mbuf);
}

void kopi_pktmbuf_free_seg(struct rte_mbuf *mbuf)
{
    rte_pktmbuf_free_seg(mbuf);
}

struct rte_mbuf *kopi_pktmbuf_prefree_seg(struct rte_mbuf *mbuf)
{
    return rte_pktmbuf_prefree_seg(mbuf);
}

void kopi_pktmbuf_reset(struct rte_mbuf *mbuf)
{
    rte_pktmbuf_reset(mbuf);
}

int kopi_pktmbuf_linearize(struct rte_mbuf *mbuf)
{
    return rte_pktmbuf_linearize(mbuf);
}

int kopi_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
    return rte_pktmbuf_chain(head, tail);
}

void kopi_pktmbuf_attach(struct rte_mbuf *indirect, struct rte_mbuf *direct)
{
    rte_pktmbuf_attach(indirect, direct);
}

void kopi_pktmbuf_attach_extbuf(struct rte_mbuf *mbuf, void *addr, uint64_t iova, uint16_t len,
                                struct rte_mbuf_ext_shared_info *shared)
{
    rte_pktmbuf_attach_extbuf(mbuf, addr, iova, len, shared);
}

uint16_t kopi_pktmbuf_data_room_size(struct rte_mempool *pool)
{
    return rte_pktmbuf_data_room_size(pool);
}

uint16_t kopi_pktmbuf_priv_size(struct rte_mempool *pool)
{
    return rte_pktmbuf_priv_size(pool);
}

bool kopi_pktmbuf_pool_pinned(struct rte_mempool *pool)
{
    return (rte_pktmbuf_priv_flags(pool) & RTE_PKTMBUF_POOL_F_PINNED_EXT_BUF) != 0;
}

uint16_t kopi_mbuf_refcnt_read(const struct rte_mbuf *mbuf)
{
    return rte_mbuf_refcnt_read(mbuf);
}

void kopi_mbuf_refcnt_set(struct rte_mbuf *mbuf, uint16_t value)
{
    rte_mbuf_refcnt_set(mbuf, value);
}

uint16_t kopi_mbuf_refcnt_update(struct rte_mbuf *mbuf, int16_t delta)
{
    return rte_mbuf_refcnt_update(mbuf, delta);
}

int kopi_mempool_get_bulk(struct rte_mempool *pool, void **objects, unsigned int n)
{
    return rte_mempool_get_bulk(pool, objects, n);
}

void kopi_mempool_put_bulk(struct rte_mempool *pool, void *const *objects, unsigned int n)
{
    rte_mempool_put_bulk(pool, objects, n);
}

int kopi_errno(void)
{
    return rte_errno;
}

unsigned int kopi_lcore_id(void)
{
    return rte_lcore_id();
}

bool kopi_lcore_has_cpu(unsigned int lcore, unsigned int cpu)
{
    rte_cpuset_t set = rte_lcore_cpuset(lcore);

    return cpu < CPU_SETSIZE && CPU_ISSET(cpu, &set);
}

uint64_t kopi_rdtsc(void)
{
    return rte_rdtsc();
}

static void link_out(const struct rte_eth_link *from, struct kopi_link *to)
{
    to->speed_mbps = from->link_speed;
    to->full_duplex = from->link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    to->autoneg = from->link_autoneg == RTE_ETH_LINK_AUTONEG;
    to->up = from->link_status == RTE_ETH_LINK_UP;
}

int kopi_eth_link_get(uint16_t port, struct kopi_link *link)
{
    struct rte_eth_link raw;
    memset(&raw, 0, sizeof(raw));
    int ret = rte_eth_link_get_nowait(port, &raw);
    link_out(&raw, link);
    return ret;
}

int kopi_eth_linkstatus_set(struct rte_eth_dev *dev, const struct kopi_link *link)
{
    struct rte_eth_link raw;
    memset(&raw, 0, sizeof(raw));
    raw.link_speed = link->speed_mbps;
    raw.link_duplex = link->full_duplex ? RTE_ETH_LINK_FULL_DUPLEX : RTE_ETH_LINK_HALF_DUPLEX;
    raw.link_autoneg = link->autoneg ? RTE_ETH_LINK_AUTONEG : RTE_ETH_LINK_FIXED;
    raw.link_status = link->up ? RTE_ETH_LINK_UP : RTE_ETH_LINK_DOWN;
    return rte_eth_linkstatus_set(dev, &raw);
}

void kopi_eth_linkstatus_get(const struct rte_eth_dev *dev, struct kopi_link *link)
{
    struct rte_eth_link raw;
    rte_eth_linkstatus_get(dev, &raw);
    link_out(&raw, link);
}

struct rte_eth_dev *kopi_eth_vdev_allocate(struct rte_vdev_device *dev, size_t private_size)
{
    return rte_eth_vdev_allocate(dev, private_size);
}

const char *kopi_vdev_device_name(const struct rte_vdev_device *dev)
{
    return rte_vdev_device_name(dev);
}

const char *kopi_vdev_device_args(const struct rte_vdev_device *dev)
{
    return rte_vdev_device_args(dev);
}

struct rte_device *kopi_vdev_to_device(struct rte_vdev_device *dev)
{
    return &dev->device;
}

struct rte_vdev_device *kopi_device_to_vdev(struct rte_device *dev)
{
    return RTE_DEV_TO_VDEV(dev);
}

void kopi_log(uint32_t level, uint32_t type, const char *text, uint32_t len)
{
    rte_log(level, type, "%.*s\n", (int)len, text);
}

void kopi_memseg_list_get(const struct rte_memseg_list *list, struct kopi_memory *memory)
{
    memory->start = list->base_va;
    memory->length = list->len;
    memory->page = list->page_sz;
    memory->external = list->external != 0;
    memory->fixed = false;
}

void kopi_memseg_get(const struct rte_memseg_list *list, const struct rte_memseg *segment, struct kopi_memory *memory)
{
    memory->start = segment->addr;
    memory->length = segment->len;
    memory->page = segment->hugepage_sz;
    memory->external = list->external != 0;
    memory->fixed = (segment->flags & RTE_MEMSEG_FLAG_DO_NOT_FREE) != 0;
}

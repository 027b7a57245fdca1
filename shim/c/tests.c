/* For the unit tests: DPDK's own inline functions on packet buffers, and bit fields of its structures, compiled by the headers of the
 * DPDK that is installed. */
#include <rte_flow.h>
#include <rte_mbuf.h>
#include <string.h>

struct rte_mbuf *kopi_pktmbuf_alloc(struct rte_mempool *pool)
{
    return rte_pktmbuf_alloc(pool);
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

uint16_t kopi_mbuf_refcnt_read(const struct rte_mbuf *mbuf)
{
    return rte_mbuf_refcnt_read(mbuf);
}

uint16_t kopi_mbuf_refcnt_update(struct rte_mbuf *mbuf, int16_t delta)
{
    return rte_mbuf_refcnt_update(mbuf, delta);
}

/* Structures in which one bit field is set, and nothing else, by a number of ours; returns their sizes. */
size_t kopi_flow_bit(unsigned int which, void *to)
{
    struct rte_flow_item_eth eth = { .has_vlan = which == 0 };
    struct rte_flow_item_vlan vlan = { .has_more_vlan = which == 1 };
    struct rte_flow_attr attr = { .ingress = which == 2, .egress = which == 3, .transfer = which == 4 };
    struct rte_flow_query_count count = { .reset = which == 5, .hits_set = which == 6, .bytes_set = which == 7 };
    const void *from = which == 0 ? (void *)&eth : which == 1 ? (void *)&vlan : which < 5 ? (void *)&attr : (void *)&count;
    size_t size = which == 0 ? sizeof(eth) : which == 1 ? sizeof(vlan) : which < 5 ? sizeof(attr) : sizeof(count);

    memcpy(to, from, size);
    return size;
}

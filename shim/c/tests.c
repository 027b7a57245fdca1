/* For the unit tests: DPDK's own inline functions on packet buffers, compiled by the headers of the DPDK that is installed. */
#include <rte_mbuf.h>

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

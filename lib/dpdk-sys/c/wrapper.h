/* Everything of DPDK that kopid binds: the public interface, and our out-of-line copies of the inline functions; and the
 * compiler of filters that is in libpcap. bindgen reads this file; build.rs names the functions, types and macros that are
 * let through. */
#ifndef KOPI_WRAPPER_H
#define KOPI_WRAPPER_H

#include <pcap/pcap.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include "inlines.h"

/* bindgen cannot evaluate a macro that holds a cast or calls another macro (RTE_BIT64), but it can evaluate a
 * constant. build.rs takes the prefix off again. */
#define U32(name) static const uint32_t KOPI_CONST_##name = name;
#define U64(name) static const uint64_t KOPI_CONST_##name = name;

U32(RTE_ETH_DEV_INTR_LSC)
U32(RTE_ETH_SPEED_NUM_UNKNOWN)

U64(RTE_ETH_RX_OFFLOAD_CHECKSUM)
U64(RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE)
U64(RTE_ETH_TX_OFFLOAD_IPV4_CKSUM)
U64(RTE_ETH_TX_OFFLOAD_UDP_CKSUM)

U64(RTE_ETH_RSS_IP)
U64(RTE_ETH_RSS_TCP)
U64(RTE_ETH_RSS_UDP)

U64(RTE_MBUF_F_TX_IPV4)
U64(RTE_MBUF_F_TX_IP_CKSUM)
U64(RTE_MBUF_F_TX_UDP_CKSUM)
U64(RTE_MBUF_F_EXTERNAL)
U64(RTE_MBUF_F_INDIRECT)

/* The first name is that of DPDK 23.03 and later, the second that of 22.11. */
#if !(RTE_IOVA_IN_MBUF + 0) && !(RTE_IOVA_AS_PA + 0)
#error "this DPDK was built with -Denable_iova_as_pa=false, which changes the layout of rte_mbuf: not supported"
#endif

/* Where the fields of rte_mbuf lie in the installed version. lib.rs asserts that its own rte_mbuf agrees. */
#define FIELD(field) KOPI_OFFSET_##field = offsetof(struct rte_mbuf, field)
enum kopi_mbuf_layout {
    KOPI_MBUF_SIZE = sizeof(struct rte_mbuf),
    KOPI_MBUF_ALIGN = __alignof__(struct rte_mbuf),
    FIELD(buf_addr),
    FIELD(buf_iova),
    FIELD(data_off),
    FIELD(refcnt),
    FIELD(nb_segs),
    FIELD(port),
    FIELD(ol_flags),
    FIELD(packet_type),
    FIELD(pkt_len),
    FIELD(data_len),
    FIELD(vlan_tci),
    FIELD(hash),
    FIELD(vlan_tci_outer),
    FIELD(buf_len),
    FIELD(pool),
    FIELD(next),
    FIELD(tx_offload),
    FIELD(shinfo),
    FIELD(priv_size),
    FIELD(timesync),
    FIELD(dynfield1),
};
#undef FIELD

#endif

# The Huffman code of HPACK (RFC 7541 appendix B): octets in, octets out. Knows no fields.
#
# The code is canonical, so the lengths of its 257 codes say all of it; the tables to read it by are made of them once, when
# the module is loaded. Ten bits decide what stands in ordinary text; longer codes are found by their length.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #define MC_HUFFMAN_SHORT_BITS 10
    static const uint8_t mc_huffman_lengths[257] = {
      13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
      28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
      6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
      15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22,
      20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23,
      23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22,
      22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26,
      27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27,
      26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30
    };
    static uint16_t mc_huffman_short[1 << MC_HUFFMAN_SHORT_BITS];   /* length << 8 | octet; 0: the code is longer */
    static uint16_t mc_huffman_by_code[257];                        /* all octets (256: the end), in the order of their codes */
    static uint32_t mc_huffman_first[32];                           /* of each length: its first code, */
    static uint32_t mc_huffman_count[32];                           /* how many it has, */
    static uint32_t mc_huffman_place[32];                           /* and where they stand in by_code */
    __attribute__((constructor)) static void mc_huffman_make(void) {
      uint32_t code = 0, place = 0;
      for (uint32_t len = 1; len <= 30; len++, code <<= 1) {
        mc_huffman_first[len] = code;
        mc_huffman_place[len] = place;
        for (uint32_t octet = 0; octet < 257; octet++) {
          if (mc_huffman_lengths[octet] != len) continue;
          if (len <= MC_HUFFMAN_SHORT_BITS) {
            uint32_t unused = MC_HUFFMAN_SHORT_BITS - len;
            for (uint32_t i = 0; i < 1u << unused; i++)
              mc_huffman_short[code << unused | i] = (uint16_t)(len << 8 | octet);
          }
          mc_huffman_by_code[place++] = (uint16_t)octet;
          code++;
        }
        mc_huffman_count[len] = place - mc_huffman_place[len];
      }
    }
    """
    uint32_t HUFFMAN_SHORT_BITS "MC_HUFFMAN_SHORT_BITS"
    const uint16_t* huffman_short "mc_huffman_short"
    const uint16_t* huffman_by_code "mc_huffman_by_code"
    const uint32_t* huffman_first "mc_huffman_first"
    const uint32_t* huffman_count "mc_huffman_count"
    const uint32_t* huffman_place "mc_huffman_place"

cdef enum:
    HUFFMAN_LONGEST_BITS = 30
    HUFFMAN_END = 256                   # a symbol that must not be written
    HUFFMAN_NO_ROOM = -2


cdef inline int32_t huffman_decode(char* out, uint32_t room, const uint8_t* at, uint32_t n) noexcept nogil:
    """Write what `n` octets stand for. Its length; -1 when they are no text, HUFFMAN_NO_ROOM for one longer than `room`."""
    cdef uint64_t bits = 0              # its lowest `held` bits are not used yet
    cdef uint32_t held = 0
    cdef uint32_t i = 0
    cdef uint32_t written = 0
    cdef uint32_t entry
    while True:
        while held <= 48 and i < n:
            bits = bits << 8 | at[i]
            held += 8
            i += 1
        if held < 8 and bits & ((<uint64_t>1 << held) - 1) == (<uint64_t>1 << held) - 1:
            return <int32_t>written     # RFC 7541 5.2: padded with the beginning of the end's code, less than an octet of it
        entry = huffman_short[huffman_peek(bits, held, HUFFMAN_SHORT_BITS)]
        if entry == 0:
            entry = huffman_long(huffman_peek(bits, held, HUFFMAN_LONGEST_BITS))
        if entry >> 8 > held or entry == 0:
            return -1
        if written == room:
            return HUFFMAN_NO_ROOM
        held -= entry >> 8
        out[written] = <char>entry
        written += 1


cdef inline uint32_t huffman_peek(uint64_t bits, uint32_t held, uint32_t wanted) noexcept nogil:
    """The next bits; where there are fewer, followed by ones, as padding is."""
    cdef uint64_t found
    if held >= wanted:
        found = bits >> (held - wanted)
    else:
        found = bits << (wanted - held) | ((<uint64_t>1 << (wanted - held)) - 1)
    return <uint32_t>(found & ((<uint64_t>1 << wanted) - 1))


cdef inline uint32_t huffman_long(uint32_t bits) noexcept nogil:
    """The code that 30 bits begin with, as huffman_short has them; 0 for the end."""
    cdef uint32_t length
    cdef uint32_t nth
    cdef uint32_t octet
    for length in range(HUFFMAN_SHORT_BITS + 1, <uint32_t>HUFFMAN_LONGEST_BITS + 1):
        nth = (bits >> (HUFFMAN_LONGEST_BITS - length)) - huffman_first[length]
        if nth < huffman_count[length]:
            octet = huffman_by_code[huffman_place[length] + nth]
            return 0 if octet == HUFFMAN_END else length << 8 | octet
    return 0

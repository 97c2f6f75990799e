# The keys that seal session tickets: made here, rotated here, wiped here. Decides nothing about who may resume.
#
# A ticket is sealed by the current key and opened by it or the one before, so that each is accepted for one to two periods
# and a stolen key opens little. Keys never leave this memory. Shared by workers: a lock around a copy of 80 octets.

from libc.stdint cimport uint32_t

cdef extern from * nogil:
    """
    #include <openssl/core_names.h>
    #include <openssl/evp.h>
    #include <openssl/params.h>
    #include <openssl/rand.h>
    #include <openssl/crypto.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>

    typedef struct { unsigned char name[16], cipher[32], mac[32]; } mc_ticket_key;
    typedef struct {
        pthread_mutex_t lock;
        uint32_t refs;
        uint32_t period_s;
        int64_t made_s;                  /* when keys[0] was */
        EVP_CIPHER* cipher;              /* fetched once: OpenSSL's own looking up costs more than the sealing */
        mc_ticket_key keys[2];           /* current, previous */
    } mc_ticket_keys;

    static int64_t mc_ticket_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec;
    }
    static mc_ticket_keys* mc_ticket_keys_new(uint32_t period_s) {
        mc_ticket_keys* k = (mc_ticket_keys*)calloc(1, sizeof *k);
        if (!k) return NULL;
        k->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
        if (!k->cipher || RAND_bytes((unsigned char*)k->keys, sizeof k->keys) != 1) {
            EVP_CIPHER_free(k->cipher);
            free(k);
            return NULL;
        }
        pthread_mutex_init(&k->lock, NULL);
        k->refs = 1;
        k->period_s = period_s;
        k->made_s = mc_ticket_now();
        return k;
    }
    static mc_ticket_keys* mc_ticket_keys_hold(mc_ticket_keys* k) {
        if (k) __atomic_add_fetch(&k->refs, 1, __ATOMIC_ACQ_REL);
        return k;
    }
    static void mc_ticket_keys_release(mc_ticket_keys* k) {
        if (!k || __atomic_sub_fetch(&k->refs, 1, __ATOMIC_ACQ_REL)) return;
        pthread_mutex_destroy(&k->lock);
        EVP_CIPHER_free(k->cipher);
        OPENSSL_cleanse(k, sizeof *k);
        free(k);
    }
    /* Copies the key to seal with, or the one of that name. 1 current, 2 previous, 0 unknown, -1 no randomness. */
    static int mc_ticket_key_find(mc_ticket_keys* k, const unsigned char* name, mc_ticket_key* out) {
        int64_t now = mc_ticket_now(), age;
        int found = 0;
        pthread_mutex_lock(&k->lock);
        age = now - k->made_s;
        if (age >= k->period_s) {
            /* After two periods without use even the current key is too old to open anything. */
            if (age >= 2 * (int64_t)k->period_s) {
                if (RAND_bytes((unsigned char*)&k->keys[1], sizeof k->keys[1]) != 1) found = -1;
            } else k->keys[1] = k->keys[0];
            if (RAND_bytes((unsigned char*)&k->keys[0], sizeof k->keys[0]) != 1) found = -1;
            k->made_s = now;
        }
        if (found == 0) {
            if (!name || !memcmp(name, k->keys[0].name, 16)) { *out = k->keys[0]; found = 1; }
            else if (!memcmp(name, k->keys[1].name, 16)) { *out = k->keys[1]; found = 2; }
        }
        pthread_mutex_unlock(&k->lock);
        return found;
    }
    /* For SSL_CTX_set_tlsext_ticket_key_evp_cb: sets up cipher and MAC. 2 when opening asks for a new ticket. */
    static int mc_ticket_seal(mc_ticket_keys* k, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                              EVP_MAC_CTX* mac, int sealing) {
        mc_ticket_key key;
        OSSL_PARAM params[3];
        int found, ok;
        if (!k) return 0;
        found = mc_ticket_key_find(k, sealing ? NULL : name, &key);
        if (found <= 0) return found;
        params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac, sizeof key.mac);
        params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char*)"sha256", 0);
        params[2] = OSSL_PARAM_construct_end();
        ok = EVP_MAC_CTX_set_params(mac, params);
        if (ok && sealing) {
            memcpy(name, key.name, 16);
            ok = RAND_bytes(iv, 16) == 1;
        }
        ok = ok && EVP_CipherInit_ex(cipher, k->cipher, NULL, key.cipher, iv, sealing);
        OPENSSL_cleanse(&key, sizeof key);
        return ok ? found : -1;
    }
    """
    ctypedef struct TicketKeys "mc_ticket_keys":
        uint32_t refs
        uint32_t period_s
        long made_s
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass
    # A holder's pair: NULL without memory or randomness; release wipes when the last holder lets go.
    TicketKeys* ticket_keys_new "mc_ticket_keys_new"(uint32_t period_s)
    TicketKeys* ticket_keys_hold "mc_ticket_keys_hold"(TicketKeys* keys)
    void ticket_keys_release "mc_ticket_keys_release"(TicketKeys* keys)
    # 1: sealed or opened with the current key; 2: opened with the one before; 0: not ours; -1: failed.
    int ticket_seal "mc_ticket_seal"(TicketKeys* keys, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                                     EVP_MAC_CTX* mac, int sealing)

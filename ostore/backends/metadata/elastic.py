"""The metadata of a cluster, in Elasticsearch or OpenSearch.

Each (bucket, name) has one head document, changed by compare-and-set alone and read
in real time; its oldest versions lie in archives, which are never changed. Both are
documents of `ostore-heads`; an archive has its head's id as routing. The one document
`cluster` of `ostore-cluster` holds id and epoch. Paths name aliases, except where an
index is made. Every call made here, ID and SEQ and TERM being what was read before:

    documents
    POST /ostore-heads/_mget?preference=ostore&_source_includes=a,b,...   idempotent
        {"docs": [{"_id": ID}, {"_id": ARCHIVE, "routing": ID}, ...]}
        -> 200 {"docs": [{"_id", "found", "_source", "_seq_no", "_primary_term"} |
                         {"_id", "found": false} | {"_id", "error": {"type", ...}}]}
    POST /ostore-heads/_bulk?require_alias=true&timeout=3s&wait_for_active_shards=N
        {"create": {"_id": ID}}, {document},                a head that was absent
        {"index": {"_id": ID, "if_seq_no": SEQ, "if_primary_term": TERM}}, {document},
        {"create": {"_id": ARCHIVE, "routing": ID}}, {document},
        {"delete": {"_id": ARCHIVE, "routing": ID}}
        -> 200 {"errors", "items": [{ACTION: {"_id", "status", "_seq_no",
                "_primary_term"}} | {ACTION: {"_id", "status", "error": {"type"}}}]}
    the same two on /ostore-cluster for the document `cluster`

    pages: POST /ostore-heads/_refresh and
    POST /ostore-heads/_search?preference=ostore&allow_partial_search_results=false
        {"size", "track_total_hits": false, "_source": [fields], "query": {"bool":
        {"filter": [{"term": {F: V}} | {"range": {F: {"gte", "lt"}}}, ...]}},
        "sort": [{F: "asc"}], "search_after": [V]}
        {"size": 0, "track_total_hits": false, "query": ..., "aggs": {"page":
        {"composite": {"size", "sources": [{F: {"terms": {"field": F}}}],
        "after": {F: V}}}}}                                 all idempotent
        -> 200 {"timed_out", "_shards": {"total", "successful", "failed"}, "hits":
        {"hits": [{"_id", "_source", "sort"}]}, "aggregations": {"page": {"buckets":
        [{"key": {F: V}, "doc_count"}]}}}

    set-up, all idempotent
    GET /_nodes/_local        GET /_cluster/health/ostore-heads,ostore-cluster?timeout=1s
    GET and PUT /_index_template/ostore-heads     GET /ostore-heads
    PUT /ostore-heads-v1 {"aliases": {"ostore-heads": {}}}    and for ostore-cluster
"""

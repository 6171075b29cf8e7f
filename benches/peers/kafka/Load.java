// Kafka's own client under load: any number of producers in one process that stays up between loads, so that Java's
// compiler has done its work when it is measured. Reads a command a line, answers each with one line:
//   create NAME PARTITIONS IS_FLUSHED
//   delete NAME
//   publish NAME PRODUCERS SIZE RATE SECONDS LINGER_MS BATCH_BYTES     (rate 0: as fast as it goes)
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.HdrHistogram.AtomicHistogram;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Load {
  private static final long SECOND = 1_000_000_000L;
  /** Of all producers together, as much as ProducerPerformance is given; of one, at least some batches. */
  private static final long BUFFER = 64L << 20;

  private final String address;
  private final Admin admin;

  private Load(String address) {
    this.address = address;
    Properties properties = new Properties();
    properties.put("bootstrap.servers", address);
    this.admin = Admin.create(properties);
  }

  public static void main(String[] arguments) throws Exception {
    Load load = new Load(arguments[0]);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String answer;
      try {
        answer = load.run(line.trim().split(" "));
      } catch (Exception error) {
        answer = "error " + String.valueOf(error).replace('\n', ' ');
      }
      System.out.println(answer);
      System.out.flush();
    }
    System.exit(0);
  }

  private String run(String[] words) throws Exception {
    switch (words[0]) {
      case "create" -> {
        NewTopic topic = new NewTopic(words[1], Integer.parseInt(words[2]), (short) 1);
        if (Boolean.parseBoolean(words[3])) topic.configs(Map.of("flush.messages", "1"));
        admin.createTopics(Set.of(topic)).all().get();
        // Until every partition has a leader that takes records: a producer that meets one without may wait for its
        // delivery timeout.
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("acks", "all");
        properties.put("enable.idempotence", "false");
        try (KafkaProducer<byte[], byte[]> producer =
            new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
          for (int partition = 0; partition < topic.numPartitions(); partition++) {
            producer.send(new ProducerRecord<>(words[1], partition, null, new byte[1])).get();
          }
        }
        return "ok";
      }
      case "delete" -> {
        admin.deleteTopics(Set.of(words[1])).all().get();
        return "ok";
      }
      case "publish" -> {
        return publish(words);
      }
      default -> throw new IllegalArgumentException("no such command: " + words[0]);
    }
  }

  private String publish(String[] words) throws Exception {
    String topic = words[1];
    int count = Integer.parseInt(words[2]);
    byte[] body = new byte[Integer.parseInt(words[3])];
    long rate = Long.parseLong(words[4]);
    long length = (long) (Double.parseDouble(words[5]) * SECOND);
    int batch = Integer.parseInt(words[7]);
    List<KafkaProducer<byte[], byte[]>> producers = new ArrayList<>();
    try {
      for (int i = 0; i < count; i++) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("acks", "all");
        properties.put("linger.ms", words[6]);
        properties.put("batch.size", batch);
        properties.put("buffer.memory", Math.max(BUFFER / count, 4L * batch));
        KafkaProducer<byte[], byte[]> producer =
            new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
        producers.add(producer);
        // Connected, and knowing the partitions, before the clock starts.
        producer.partitionsFor(topic);
      }
      return measure(topic, producers, body, rate, length);
    } finally {
      for (KafkaProducer<byte[], byte[]> producer : producers) producer.close();
    }
  }

  private static String measure(
      String topic, List<KafkaProducer<byte[], byte[]>> producers, byte[] body, long rate, long length)
      throws Exception {
    AtomicHistogram latencies = new AtomicHistogram(600_000_000L, 3);
    AtomicLong acknowledged = new AtomicLong();
    AtomicLong last = new AtomicLong();
    AtomicReference<Exception> failure = new AtomicReference<>();
    CountDownLatch go = new CountDownLatch(1);
    long[] start = new long[1];
    List<Thread> threads = new ArrayList<>();
    int count = producers.size();
    for (int i = 0; i < count; i++) {
      KafkaProducer<byte[], byte[]> producer = producers.get(i);
      int offset = i;
      Runnable send =
          () -> {
            try {
              go.await();
              for (long k = 0; failure.get() == null; k++) {
                long now = System.nanoTime();
                if (rate > 0) {
                  long due = start[0] + (long) ((double) (k * count + offset) * SECOND / rate);
                  if (due - start[0] >= length) break;
                  while ((now = System.nanoTime()) < due) LockSupport.parkNanos(due - now);
                } else if (now - start[0] >= length) {
                  break;
                }
                long sent = now;
                producer.send(
                    new ProducerRecord<>(topic, body),
                    (metadata, error) -> {
                      if (error != null) {
                        failure.compareAndSet(null, error);
                        return;
                      }
                      long done = System.nanoTime();
                      latencies.recordValue(Math.max(0, (done - sent) / 1000));
                      acknowledged.incrementAndGet();
                      last.accumulateAndGet(done, Math::max);
                    });
              }
              producer.flush();
            } catch (Exception error) {
              failure.compareAndSet(null, error);
            }
          };
      Thread thread = new Thread(null, send, "producer-" + i, 256 << 10);
      thread.start();
      threads.add(thread);
    }
    start[0] = System.nanoTime();
    last.set(start[0]);
    go.countDown();
    for (Thread thread : threads) thread.join();
    if (failure.get() != null) throw failure.get();
    double seconds = (last.get() - start[0]) / (double) SECOND;
    return String.format(
        Locale.ROOT,
        "{\"records\":%d,\"rate\":%.1f,\"p50\":%d,\"p99\":%d}",
        acknowledged.get(),
        acknowledged.get() / seconds,
        latencies.getValueAtPercentile(50),
        latencies.getValueAtPercentile(99));
  }
}
